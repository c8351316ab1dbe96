// Search in the archive, where there is one.
import { html, useEffect, useState } from "./html.js";
import { get, useGet } from "./api.js";
import { Choice, Empty, IntegrityChip, Loading, Name, Problem, ResponseLink, StatusChip, Time, Unknown } from "./pieces.js";
import { textsAsked, useSession } from "./session.js";
import { change } from "./url_state.js";
import { visible } from "./visible.js";
import { KINDS, kindName, kindTone } from "./words.js";

/** Return an excerpt with its marks, which count characters of Unicode. Marks that do not fit into it are left out. */
function marked(excerpt, marks) {
  const characters = [...excerpt];
  const between = (start, end) => visible(characters.slice(start, end).join(""));
  const pieces = [];
  let at = 0;
  for (const [start, end] of marks ?? []) {
    if (!(start >= at && end > start && end <= characters.length)) continue;
    pieces.push(between(at, start), html`<mark>${between(start, end)}</mark>`);
    at = end;
  }
  return [...pieces, between(at)];
}

function Hit({ hit }) {
  return html`<li class=${`card hit tone-${kindTone(hit.kind)}`} data-row>
    <header>
      <h3 class="kind">${hit.kind ? kindName(hit.kind) : (hit.family ?? "record")}</h3>
      ${hit.status && html`<${StatusChip} status=${hit.status} />`}
      ${hit.integrity && html`<${IntegrityChip} integrity=${hit.integrity} />`}
      <span class="card-time"><${Time} at=${hit.at} /></span>
    </header>
    <p class="card-context"><${ResponseLink} id=${hit.response_id} />
      ${hit.model && html`<span>by <${Name} of=${hit.model} /></span>`}${hit.tenant && html`<span>for <${Name} of=${hit.tenant} /></span>`}</p>
    ${hit.hidden ? html`<p class="withheld">Its text is hidden.</p>` : html`<blockquote dir="auto"><bdi>${marked(hit.excerpt ?? "", hit.marks)}</bdi></blockquote>`}
  </li>`;
}

export function Search({ parameters }) {
  const me = useSession();
  if (!me.archive) return html`<h1>Search</h1><${Empty} title="There is no archive.">Search needs one, since Redis keeps texts only for a while: see “the archive” in deltaloom's documentation.<//>`;
  const send = (event) => {
    event.preventDefault();
    const form = new FormData(event.target);
    change({ q: form.get("q").trim(), tenant: form.get("tenant").trim(), model: form.get("model").trim() });
  };
  return html`<h1>Search</h1>
    <form class="filters" role="search" onSubmit=${send}>
      <label class="field field-wide"><span>words</span><input name="q" type="search" value=${parameters.q ?? ""} maxlength="400" required /></label>
      <${Choice} label="kind" value=${parameters.kind} options=${Object.entries(KINDS)} onChoose=${(value) => change({ kind: value })} />
      <label class="field"><span>model</span><input name="model" value=${parameters.model ?? ""} maxlength="256" /></label>
      <label class="field"><span>tenant</span><input name="tenant" value=${parameters.tenant ?? ""} maxlength="256" /></label>
      <button type="submit" class="primary">Search</button>
    </form>
    ${parameters.q ? html`<${Found} parameters=${parameters} me=${me} />` : html`<${Empty} title="Search the archived texts.">All words must be in a text. The archive records who searched, not for what.<//>`}`;
}

function Found({ parameters, me }) {
  const { q, kind, model, tenant } = parameters;
  const query = { q, kind, model, tenant, ...textsAsked(me, parameters) };
  const { data, error, loading, again } = useGet("search", query);
  const [more, setMore] = useState(null);
  useEffect(() => setMore(null), [data]);
  const hits = [...(data?.hits ?? []), ...(more?.hits ?? [])];
  const next = more ? more.next : data?.next;
  const load = async () => {
    const page = await get("search", { ...query, before: next });
    setMore({ hits: [...(more?.hits ?? []), ...page.hits], next: page.next });
  };
  return html`<${Problem} error=${error} again=${again} />
    ${!data && loading && html`<${Loading} />`}
    ${data && !hits.length && html`<${Empty} title="Nothing was found.">Texts that were never archived, or that were erased, are not here.<//>`}
    ${hits.length > 0 && html`<h2 class="unseen">Found, the newest first</h2>`}
    <ol class="cards hits">${hits.map((hit) => html`<${Hit} hit=${hit} />`)}</ol>
    ${next && html`<p class="more"><button type="button" onClick=${load}>Show older ones</button></p>`}
    <${Unknown} words=${data?.unknown} />`;
}
