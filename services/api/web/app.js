// The frame around every page: who is signed in, where one can go, light or dark.

import { get, key } from "./api.js";
import { html, render, useEffect, useLayoutEffect, useState } from "./vendor/preact.js";
import { Caller, Field, Toasts, Trouble } from "./parts/ui.js";
import { match, to, useAddress } from "./router.js";
import { NAVIGATION, ROUTES } from "./routes.js";

const THEME = "selftaught.theme";

function useTheme() {
  const [theme, setTheme] = useState(localStorage.getItem(THEME) || "system");
  useLayoutEffect(() => {
    localStorage.setItem(THEME, theme);
    document.documentElement.dataset.theme = theme;
  }, [theme]);
  return [theme, setTheme];
}

function App() {
  const [caller, setCaller] = useState(null);
  const [error, setError] = useState(null);
  const [asked, setAsked] = useState(0);
  useEffect(() => {
    get("/v1/caller").then(
      (found) => {
        setCaller(found);
        setError(null);
      },
      (problem) => {
        setCaller(null);
        setError(problem);
      },
    );
  }, [asked]);
  useEffect(() => {
    const out = (event) => {
      setCaller(null);
      setError(event.detail);
    };
    addEventListener("unauthorised", out);
    return () => removeEventListener("unauthorised", out);
  }, []);
  const again = () => setAsked((n) => n + 1);
  if (caller) return html`<${Caller.Provider} value=${caller}><${Frame} caller=${caller} onSignedOut=${again} /><//>`;
  if (error && (error.code === "key_required" || error.code === "invalid_key")) return html`<${SignIn} error=${error} onSignedIn=${again} />`;
  if (error) return html`<main class="alone"><h1>selftaught</h1><${Trouble} error=${error} retry=${again} /></main>`;
  return html`<main class="alone"><p class="loading" role="status">Loading…</p></main>`;
}

function SignIn({ error, onSignedIn }) {
  const [secret, setSecret] = useState("");
  const wrong = error.code === "invalid_key" && key.get() ? error.detail : undefined;
  function submit(event) {
    event.preventDefault();
    key.set(secret.trim());
    onSignedIn();
  }
  return html`<main class="alone">
    <h1>selftaught</h1>
    <form class="card" onSubmit=${submit}>
      <${Field} label="API key" error=${wrong} hint="Made by an admin of your project: selftaught keys create. It is kept in this tab and forgotten with it.">
        ${(given) => html`<input ...${given} type="password" autocomplete="off" required placeholder="st_…" value=${secret} onInput=${(event) => setSecret(event.target.value)} />`}
      <//>
      <button class="primary">Sign in</button>
    </form>
  </main>`;
}

function Frame({ caller, onSignedOut }) {
  const address = useAddress();
  const [theme, setTheme] = useTheme();
  const [menu, setMenu] = useState(false);
  useEffect(() => setMenu(false), [address.path]);
  function leave() {
    key.forget();
    onSignedOut();
  }
  const next = { system: "light", light: "dark", dark: "system" }[theme];
  const places = NAVIGATION.filter(([, , scope]) => (scope === "operator" ? caller.operator : caller.scopes.includes(scope)));
  return html`
    <a class="skip" href="#main" onClick=${(event) => { event.preventDefault(); document.getElementById("main").focus(); }}>Skip to the page</a>
    <div class="frame">
      <header class="side">
        <div class="brand"><a href=${to("/")}><img src="/web/icon.svg" alt="" width="28" height="28" /> selftaught</a>
          <button class="menu quiet" aria-expanded=${menu} aria-controls="places" onClick=${() => setMenu(!menu)}>Menu</button></div>
        <nav id="places" aria-label="Pages" class=${menu ? "open" : ""}>
          <ul>${places.map(([path, name]) => html`<li key=${path}><a href=${to(path)} aria-current=${inside(address.path, path) ? "page" : undefined}>${name}</a></li>`)}</ul>
          <div class="who">
            <p>Project <strong>${caller.project}</strong>${caller.key && html`<br />key ${caller.key.name}`}</p>
            <p><button class="small" onClick=${() => setTheme(next)}>Theme: ${theme}</button>
            ${caller.key && html` <button class="small" onClick=${leave}>Sign out</button>`}</p>
            <p><a href="/docs">API</a> · version ${caller.version}</p>
          </div>
        </nav>
      </header>
      <main id="main" tabindex="-1"><${Opened} ...${address} key=${address.path} /></main>
    </div>
    <${Toasts} />
  `;
}

const inside = (path, place) => (place === "/" ? path === "/" || path.startsWith("/jobs") : path === place || path.startsWith(`${place}/`));

function Opened({ path, query }) {
  const [page, setPage] = useState(null);
  const [error, setError] = useState(null);
  const route = ROUTES.find(([pattern]) => match(pattern, path));
  useEffect(() => {
    if (!route) return;
    route[1]().then((module) => setPage(() => module.default), setError);
  }, [route]);
  if (!route) return html`<h1>Nothing is here</h1><p>There is no page ${path}. <a href=${to("/")}>All jobs</a></p>`;
  if (error) return html`<${Trouble} error=${error} retry=${() => location.reload()} />`;
  if (!page) return html`<p class="loading" role="status">Loading…</p>`;
  return html`<${page} params=${match(route[0], path)} query=${query} />`;
}

document.documentElement.dataset.theme = localStorage.getItem(THEME) || "system";
render(html`<${App} />`, document.getElementById("app"));
