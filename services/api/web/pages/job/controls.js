// What can be asked of a job, where its state and the key's scopes allow it.

import { post, remove } from "../../api.js";
import { useDeed } from "../../parts/hooks.js";
import { Dialog, tell, Trouble, useMay } from "../../parts/ui.js";
import { go } from "../../router.js";
import { html, useState } from "../../vendor/preact.js";

const GOING = ["running", "pausing", "paused"];
const ENDED = ["succeeded", "failed", "cancelled"];
const DEEDS = {
  pause: { name: "Pause", when: ["running"], said: "It is pausing: workers let go of it within seconds." },
  resume: { name: "Resume", when: ["pausing", "paused"], said: "It goes on." },
  retry: { name: "Retry", when: ["failed"], said: "It goes on from the stage that failed." },
  cancel: {
    name: "Cancel", when: GOING, said: "It is being cancelled.", title: "Cancel this job?",
    warning: "It cannot go on after that. Versions that it has published stay; what is under way is lost.",
  },
  delete: {
    name: "Delete", when: ENDED, title: "Delete this job?",
    warning: "Its data, events and reviews are deleted for good. Versions that it made stay, with what gates found of them.",
  },
};

export default function Controls({ job, reload }) {
  const [asked, setAsked] = useState(null);
  const may = useMay("write");
  const [run, { busy, error }] = useDeed(async (name) => {
    if (name === "delete") {
      await remove(`/v1/jobs/${job.id}`);
      tell(`${job.id} is deleted.`);
      go("/");
      return;
    }
    await post(`/v1/jobs/${job.id}/${name}`);
    tell(DEEDS[name].said);
    setAsked(null);
    reload();
  });
  if (!may) return null;
  const possible = Object.entries(DEEDS).filter(([, deed]) => deed.when.includes(job.state));
  const deed = asked && DEEDS[asked];
  const said = (name) => (name === "retry" && job.error?.fault === "user" ? "It needs other data or settings: as it is, it will most likely fail again." : undefined);
  return html`
    ${possible.map(([name, one]) => html`<button key=${name} title=${said(name)} class=${one.warning ? "danger" : ""} disabled=${busy} onClick=${() => (one.warning ? setAsked(name) : run(name))}>${one.name}</button>`)}
    ${error && !asked && html`<${Trouble} error=${error} />`}
    <${Dialog} title=${deed?.title} open=${asked !== null} onClose=${() => setAsked(null)}>
      <div class="stack">
        <p>${deed?.warning}</p>
        <p class="note">${job.model} · <code>${job.id}</code></p>
        <${Trouble} error=${error} />
        <div class="actions"><button class="danger" disabled=${busy} onClick=${() => run(asked)}>${deed?.name} it</button><button onClick=${() => setAsked(null)}>Keep it</button></div>
      </div>
    <//>
  `;
}
