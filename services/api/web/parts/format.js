// Numbers and times as people read them. What is not there is an en dash.

const NONE = "–";
const whole = new Intl.NumberFormat("en");
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const moment = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });

const second = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium", hourCycle: "h23" });

const missing = (value) => value === null || value === undefined || Number.isNaN(value);

export const number = (value) => (missing(value) ? NONE : whole.format(value));
export const short = (value) => (missing(value) ? NONE : compact.format(value));
export const percent = (value, digits = 1) => (missing(value) ? NONE : `${(100 * value).toFixed(digits)} %`);
export const share = (value, digits = 3) => (missing(value) ? NONE : value.toFixed(digits));
// A difference of shares in percentage points.
export const points = (value) => (missing(value) ? NONE : `${signed(100 * value, 1)} points`);
export const signed = (value, digits = 3) => (missing(value) ? NONE : `${value >= 0 ? "+" : "−"}${Math.abs(value).toFixed(digits)}`);

export function bytes(value) {
  if (missing(value)) return NONE;
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${unit && value < 10 ? value.toFixed(1) : Math.round(value)} ${units[unit]}`;
}

export function duration(seconds) {
  if (missing(seconds)) return NONE;
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  const s = Math.round(seconds);
  if (s < 120) return `${s} s`;
  if (s < 1200 && s % 60) return `${Math.floor(s / 60)} min ${s % 60} s`;
  if (s < 7200) return `${Math.round(s / 60)} min`;
  if (s < 48 * 3600) return `${Math.floor(s / 3600)} h ${Math.round((s % 3600) / 60)} min`;
  return `${Math.round(s / 86400)} days`;
}

export const time = (text) => (text ? moment.format(new Date(text)) : NONE);

// To the second, as lines of a log are told apart.
export const exact = (text) => (text ? second.format(new Date(text)) : NONE);

export function ago(text) {
  if (!text) return NONE;
  const seconds = (Date.now() - new Date(text)) / 1000;
  return seconds < 5 ? "just now" : `${duration(seconds < 60 ? seconds : Math.round(seconds / 60) * 60)} ago`;
}

// "training_examples" -> "training examples"
export const words = (name) => name.replaceAll("_", " ");
