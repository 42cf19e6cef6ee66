// Every page: its address, and the module that draws it, loaded when it is first opened.
// Pages get {params, query} and are the module's default export.

export const ROUTES = [
  ["/", () => import("./pages/jobs.js")],
];

// What the navigation lists: address, name, the scope that it needs.
export const NAVIGATION = [
  ["/", "Jobs", "read"],
];
