// Who reviews: a name that the tab keeps until it is closed.

const NAME = "selftaught.reviewer";

export const reviewer = {
  get: () => sessionStorage.getItem(NAME) || "",
  set: (name) => sessionStorage.setItem(NAME, name),
};
