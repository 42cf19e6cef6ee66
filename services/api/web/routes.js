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
  ["/models", () => import("./pages/models/list.js")],
  ["/models/:name", () => import("./pages/models/model.js")],
  ["/models/:name/versions/:number", () => import("./pages/models/version.js")],
  ["/keys", () => import("./pages/access/keys.js")],
  ["/projects", () => import("./pages/access/projects.js")],
  ["/webhooks", () => import("./pages/webhooks.js")],
  ["/system", () => import("./pages/system/system.js")],
  ["/audit", () => import("./pages/system/audit.js")],
  ["/verdicts", () => import("./pages/system/verdicts.js")],
  ["/verdicts/:id", () => import("./pages/system/verdict.js")],
];

// What the navigation lists: address, name, the scope that it needs.
export const NAVIGATION = [
  ["/", "Jobs", "read"],
  ["/datasets", "Datasets", "read"],
  ["/models", "Models", "read"],
  ["/playground", "Playground", "judge"],
  ["/reviews", "Reviews", "read"],
  ["/verdicts", "Verdict log", "read"],
  ["/keys", "Keys", "admin"],
  ["/webhooks", "Webhooks", "admin"],
  ["/audit", "Audit log", "admin"],
  ["/projects", "Projects", "operator"],
  ["/system", "System", "read"],
];
