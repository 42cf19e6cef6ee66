// One logged answer, and where the version that gave it came from.

import { get } from "../../api.js";
import { duration, exact, number, share } from "../../parts/format.js";
import { useLoad } from "../../parts/hooks.js";
import { Card, Facts, Loaded, Page } from "../../parts/ui.js";
import { to } from "../../router.js";
import { html } from "../../vendor/preact.js";
import { Ref } from "../models/registry.js";
import { VerdictChip } from "./verdicts.js";

export default function Verdict({ params: { id } }) {
  const found = useLoad((signal) => get(`/v1/verdicts/${encodeURIComponent(id)}`, {}, signal), [id]);
  return html`<${Page} title=${id} lead="An answer of /judge." crumbs=${[["Verdict log", to("/verdicts")]]}>
    <${Loaded} of=${found}>${(one) => html`<${Answer} of=${one} /><${Texts} of=${one} />`}<//>
  <//>`;
}

function Answer({ of }) {
  const { lineage } = of.version;
  return html`<${Card} title="The answer">
    <${Facts} pairs=${[
      ["Verdict", html`<${VerdictChip} of=${of.verdict} />`],
      ["Confidence", share(of.confidence)],
      ...of.orders.map((order) => [`Shown as ${order.order}`, `${order.verdict}, share ${share(order.share, 2)}`]),
      ["Given", exact(of.created_at)],
      ["Took", of.cached ? "from the cache" : `${duration(of.latency.total)}, ${duration(of.latency.engine)} of it in the engine`],
      ["Tokens", `${number(of.prompt_tokens)} read, ${number(of.completion_tokens)} written`],
      ["Votes", `${number(of.votes)}, ${number(of.parse_failures)} unreadable`],
      ["Version", html`<${Ref} of=${of.model} />`],
      ["Came by", of.alias || "the exact version"],
      of.canary && ["Canary", of.canary],
      of.job && ["The version's job", html`<a href=${to(`/jobs/${of.job}`)}>${of.job}</a>`],
      lineage.dataset && ["Trained on", html`<a href=${to(`/datasets/${lineage.dataset.id}`)}>${lineage.dataset.id}</a>`],
      ["Template", `${of.template}, ${of.template_sha256.slice(0, 12)}…`],
      ["Question", html`<a href=${to("/verdicts", { content_sha256: of.content_sha256 })}><code>${of.content_sha256.slice(0, 12)}…</code></a>`],
      ["Request", html`<code>${of.request_id ?? "–"}</code>`],
    ]} />
  <//>`;
}

function Texts({ of: { texts } }) {
  if (!texts) return html`<p class="note">The log does not keep texts (SELFTAUGHT_VERDICT_LOG).</p>`;
  return html`<${Card} title="The texts">${Object.entries(texts).map(([name, text]) => html`<section class="stack" key=${name}><h3>${name.replaceAll("_", " ")}</h3>
    <pre tabindex="0" role="region" aria-label=${name}>${typeof text === "string" ? text : JSON.stringify(text, null, 2)}</pre></section>`)}<//>`;
}
