// Why rows are left out, in words: the names of counts `dropped_<reason>` and of rows' reasons.

import { words } from "./format.js";

const REASONS = {
  // select
  empty: "an empty text",
  too_short: "too short",
  too_long: "too long",
  duplicate: "the same as an earlier row",
  duplicate_id: "its id has another row already",
  near_duplicate: "nearly the same as an earlier row",
  no_language: "does not say its language",
  language: "in another language",
  toxic: "marked as toxic",
  redacted: "marked as redacted",
  pii: "has personal data in it",
  // label, choose
  unlabelled: "no label could be read",
  category: "of a category that is not wanted",
  complexity: "too simple or too complex",
  quota: "above its category's quota",
  // pair
  truncated: "a text that did not end",
  rejected: "too long for the model",
  equal: "both responses are the same",
  near_equal: "both responses are nearly the same",
  modification_unparsable: "no modified instruction could be read",
  modification_unchanged: "the modified instruction is the same",
  refusal: "the model refused to modify it",
  no_reference: "has no reference answer",
  no_right: "no response meets the reference",
  no_wrong: "every response meets the reference",
  // curate
  no_label: "its votes have no majority",
  none_right: "no judgment was right",
  min_share: "too few judgments were right",
  other_order: "nothing right in the other order",
  disagree: "its orders reason from different answers",
  balance: "to have as many A as B",
  none_wrong: "no wrong judgment to set beside it",
  preference_balance: "to have as many A as B",
};

export const reason = (name) => REASONS[name] || words(name);

// {reason: count} of the counts `dropped_<reason>`, the most frequent first; zeros are left out.
export function dropped(counts) {
  return Object.entries(counts)
    .filter(([name, count]) => name.startsWith("dropped_") && count > 0)
    .map(([name, count]) => [name.slice("dropped_".length), count])
    .sort((a, b) => b[1] - a[1]);
}
