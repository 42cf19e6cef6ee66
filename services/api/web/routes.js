// Every page: its address, and the module that draws it, loaded when it is first opened.
// Pages get {params, query} and are the module's default export.

export const ROUTES = [
  ["/", () => import("./pages/jobs.js")],
  ["/datasets", () => import("./pages/datasets.js")],
  ["/datasets/:id", () => import("./pages/dataset.js")],
  ["/jobs/:id/pairs", () => import("./pages/pairs.js")],
  ["/playground", () => import("./pages/playground.js")],
  ["/reviews", () => import("./pages/reviews.js")],
  ["/reviews/:model/:number", () => import("./pages/review.js")],
  ["/jobs/new", () => import("./pages/new_job.js")],
  ["/jobs/:id", () => import("./pages/job.js")],
];

// What the navigation lists: address, name, the scope that it needs.
export const NAVIGATION = [
  ["/", "Jobs", "read"],
  ["/datasets", "Datasets", "read"],
  ["/playground", "Playground", "judge"],
  ["/reviews", "Reviews", "read"],
];
