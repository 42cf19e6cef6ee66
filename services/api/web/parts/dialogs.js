// Questions before something is done, and secrets that are shown once.

import { html, useState } from "../vendor/preact.js";
import { useDeed } from "./hooks.js";
import { Copy, Dialog, Trouble, tell } from "./ui.js";

// A dialog with a form: `deed()` does it and `onDone(what it gave)` follows; what is refused is told
// in the dialog, which stays open. `told(error)` may draw a refusal in another way.
export function Ask({ open, title, label, danger, disabled, deed, onClose, onDone, told, children }) {
  return html`<${Dialog} title=${title} open=${open} onClose=${onClose}>
    <${Asked} ...${{ label, danger, disabled, deed, onClose, onDone, told }}>${children}<//>
  <//>`;
}

function Asked({ label, danger, disabled, deed, onClose, onDone, told, children }) {
  const [run, { busy, error }] = useDeed(async () => {
    const found = await deed();
    onClose();
    onDone?.(found);
  });
  function submit(event) {
    event.preventDefault();
    run();
  }
  return html`<form onSubmit=${submit}>
    ${children}
    ${error && (told?.(error) || html`<${Trouble} error=${error} />`)}
    <div class="actions">
      <button class=${danger ? "danger" : "primary"} disabled=${busy || disabled}>${busy ? "Wait…" : label}</button>
      <button type="button" onClick=${onClose}>Back</button>
    </div>
  </form>`;
}

// A secret in the only answer that has it. It is not kept, here or there: closing forgets it.
export function Secret({ made, title, onClose, children }) {
  const [kept, setKept] = useState(false);
  function close() {
    setKept(false);
    onClose();
  }
  return html`<${Dialog} title=${title} open=${made !== null} onClose=${close}>
    <div class="stack">
      <p><strong>This secret is shown only now.</strong> Put it where whoever uses it finds it; nobody can look it up later.</p>
      <pre class="secret" tabindex="0" role="region" aria-label="The secret">${made?.secret}</pre>
      <div class="actions"><${Copy} text=${made?.secret} label="Copy the secret" /></div>
      ${children}
      <label class="check"><input type="checkbox" checked=${kept} onChange=${(event) => setKept(event.target.checked)} /> I have put it away</label>
      <div class="actions"><button class="primary" disabled=${!kept} onClick=${() => { close(); tell("The secret is forgotten here."); }}>Done</button></div>
    </div>
  <//>`;
}
