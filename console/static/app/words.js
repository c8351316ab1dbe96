// The words of the contract, explained. The tables have no prototype, since anybody may have sent a word such as "constructor".

export const KINDS = {
  __proto__: null,
  refusal: "Refusal",
  reasoning: "Reasoning",
  reasoning_summary: "Summary of the reasoning",
  output_text: "Answer",
};

export const STATUSES = {
  __proto__: null,
  open: ["under way", "No event has ended it yet."],
  completed: ["completed", "The model or the provider ended it as usual."],
  incomplete: ["incomplete", "The provider ended it early."],
  failed: ["failed", "It ended with an error."],
  cancelled: ["cancelled", "It was cancelled, or the client disconnected."],
  abandoned: ["abandoned", "The stream fell silent: nothing said that it was over."],
};

/** What comparing the deltas with an authoritative text gave: a label, its tone, and a sentence. */
export const INTEGRITIES = {
  __proto__: null,
  verified: ["verified", "good", "The text is complete: the joined deltas equal the whole text that was sent at the end."],
  repaired: ["repaired", "good", "The text is complete: the deltas differed from the whole text that was sent at the end, so that one is shown."],
  unverified: ["unverified", "warn", "Nobody knows whether the text is complete: no whole text was sent to compare the deltas with, or only a checksum that they do not match."],
  redacted: ["redacted", "warn", "The provider withheld the text. Nobody downstream can know it."],
  contradicted: ["contradicted", "bad", "After this text was written, another whole text arrived that differs from it."],
};

export const SOURCES = {
  __proto__: null,
  provider: "The provider vouches for it.",
  producer: "The program that published it vouches for it, not the provider.",
};

export const ALERTS = {
  __proto__: null,
  "deltaloom.refusal.opened": ["Refusal began", "The model's first word of a refusal."],
  "deltaloom.refusal.finished": ["Refusal finished", "A refusal, with its whole text."],
  "deltaloom.response.refused": ["Refused without a text", "The response ended with the reason that the model refused."],
  "deltaloom.response.filtered": ["Filtered", "A filter cut the response short."],
  "deltaloom.response.blocked": ["Blocked", "A filter or a policy stopped the response."],
  "deltaloom.response.fallback": ["Another model answered", "Another model answered in place of one that refused."],
  "deltaloom.text.contradicted": ["Text contradicted", "Another text arrived than the one that was written."],
  "deltaloom.refusal.spike": ["Spike of refusals", "The share of refused responses rose far above its level."],
  "deltaloom.refusal.spike.ended": ["Spike over", "The share of refused responses is near its former level again."],
};

export const OUTCOMES = {
  __proto__: null,
  delivered: ["delivered", "good", "The destination confirmed it."],
  refused: ["refused", "bad", "The destination declined it."],
  expired: ["expired", "bad", "The destination did not confirm it in time."],
  gone: ["gone", "bad", "The destination is disabled."],
  unreadable: ["unreadable", "bad", "The alert's entry could not be read."],
  pending: ["pending", "warn", "The relay has not finished with it."],
};

export const SEVERITIES = { __proto__: null, critical: "bad", warning: "warn", info: "quiet" };

/** Return the entry of a table, or the value itself for one that a later version added. */
export const named = (table, value, fallback = value) => table[value] ?? [fallback ?? "not known", "quiet", ""];

export const kindName = (kind) => KINDS[kind] ?? kind ?? "Text";

/** Return the class of CSS that gives a kind its colour. */
export const kindTone = (kind) => ({ refusal: "refusal", reasoning: "reasoning", reasoning_summary: "reasoning", output_text: "answer" })[kind] ?? "other";
