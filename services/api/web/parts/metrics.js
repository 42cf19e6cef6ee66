// The text that Prometheus scrapes, as objects: [{name, labels, value}].

const LINE = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)/;
const LABEL = /(\w+)="((?:[^"\\]|\\.)*)"/g;
const ESCAPES = { "\\n": "\n", '\\"': '"', "\\\\": "\\" };

export function parse(text) {
  const found = [];
  for (const line of text.split("\n")) {
    const match = line.startsWith("#") ? null : LINE.exec(line);
    if (!match) continue;
    const labels = {};
    for (const [, name, value] of (match[2] || "").matchAll(LABEL)) labels[name] = value.replace(/\\[n"\\]/g, (one) => ESCAPES[one]);
    found.push({ name: match[1], labels, value: { "+Inf": Infinity, "-Inf": -Infinity }[match[3]] ?? Number(match[3]) });
  }
  return found;
}

// The samples of one metric.
export const of = (samples, name) => samples.filter((one) => one.name === name);
// The value of a metric without labels; undefined if it is not there.
export const one = (samples, name) => of(samples, name)[0]?.value;
// The sum over all labels; undefined if there is none.
export const sum = (samples, name) => {
  const found = of(samples, name);
  return found.length ? found.reduce((total, { value }) => total + value, 0) : undefined;
};
