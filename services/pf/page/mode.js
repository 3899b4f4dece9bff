/** Who drives a port: the mode, a form to change it, and the steps of the last change as a timeline. */
import { change, get } from "./api.js";
import { Form, useSchema } from "./form.js";
import { count } from "./format.js";
import { html, useEffect, useRef, useState } from "./vendor/preact.js";

const LOOK_MS = 200;

/** The mode of a port, read again whenever `version` changes. */
function useMode(path, version) {
  const [mode, setMode] = useState(undefined);
  const [failure, setFailure] = useState(undefined);
  useEffect(() => {
    let isGone = false;
    const take = (found) => !isGone && (setMode(found), setFailure(undefined));
    get(`${path}/mode`).then(take, (error) => !isGone && setFailure(error.message));
    return () => (isGone = true);
  }, [path, version]);
  return { mode, failure, setMode };
}

/** The card. `isAttached`: whether there is a guest; `version` changes with whatever the fabric tells of this port's mode. */
export function ModeCard({ path, version, isAttached, canChange }) {
  const { mode, failure, setMode } = useMode(path, version);
  const [operation, setOperation] = useState(undefined);
  const schema = useSchema("ModeRequest");
  const gone = useRef(false);
  useEffect(() => () => (gone.current = true), []);
  const send = async (body) => {
    const asked = Object.fromEntries(
      Object.entries(body).filter(([, value]) => value !== null && value !== false && value !== ""),
    );
    let answer = await change("PUT", `${path}/mode`, asked, { prefer: "respond-async" });
    while (answer.state === "running" && !gone.current) {
      setOperation(answer);
      await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
      answer = await get(`/api/v1/operations/${answer.id}`);
    }
    setOperation(answer.state ? answer : undefined);
    if (answer.problem) throw Object.assign(new Error(answer.problem.detail), { problem: answer.problem });
    setMode(answer.result ?? answer);
  };
  const steps = operation?.steps ?? mode?.steps ?? [];
  return html`
    <section class="card" aria-labelledby="mode-title">
      <h2 id="mode-title">Mode and data path</h2>
      ${failure && html`<p class="refused" role="status">${failure}</p>`}
      ${mode && html`
        <p class="fact"><i class=${`key ${mode.mode}`}></i><b>${mode.mode}</b>
          ${!isAttached
            ? "is what the next guest begins with: nobody is attached"
            : mode.plugin
            ? `plugin ${mode.plugin} ${mode.version ?? ""}`
            : mode.dataPath
            ? `data path ${mode.dataPath}`
            : "the guest's own rings are the NIC's"}
          ${mode.changing && html`<em>changing</em>`}</p>
        ${mode.frames && html`<${PathFrames} frames=${mode.frames} />`}
        ${mode.lastFailure && html`<p class="refused">The last change that failed: ${mode.lastFailure.detail}</p>`}
      `}
      <${Timeline} steps=${steps} now=${operation?.state === "running" ? operation.now : undefined} />
      ${canChange && schema && mode && html`
        <${Form} id="mode" schema=${schema} canEdit value=${{ mode: mode.mode }} always=${["mode"]} send=${send}
          label="Change mode" done="The mode is in force." />
      `}
    </section>
  `;
}

function PathFrames({ frames }) {
  const { sentDirect, sentCopied, receivedDirect, receivedCopied } = frames;
  return html`
    <p class="help">Since the data path was chosen: sent ${count(sentDirect)} directly, ${count(
      sentCopied,
    )} copied by the
      host; received ${count(receivedDirect)} directly, ${count(receivedCopied)} copied.</p>
  `;
}

/** Steps on a common axis: each begins where the one before ended. */
function Timeline({ steps, now }) {
  if (steps.length === 0 && !now) return html`<p class="none">No change of mode since the vf service began.</p>`;
  const total = steps.reduce((sum, { ms }) => sum + ms, 0) || 1;
  let before = 0;
  return html`
    <ol class="timeline" aria-label="Steps of the last change">
      ${steps.map(({ step, ms, error, lost }) => {
        const from = before / total;
        before += ms;
        return html`
          <li class=${error ? "bad" : ""}>
            <span>${step}</span>
            <span class="lane" aria-hidden="true"><i style=${{
              left: `${from * 100}%`,
              width: `${Math.max(0.6, ms / total * 100)}%`,
            }}></i></span>
            <span class="number">${ms.toFixed(2)} ms</span>
            ${(error || lost > 0) && html`<small>${error ?? `${lost} descriptors were not sent`}</small>`}
          </li>
        `;
      })}
      ${now &&
        html`<li class="now"><span>${now}</span><span class="lane" aria-hidden="true"></span><span>…</span></li>`}
    </ol>
    ${steps.length > 0 && !now && html`<p class="help">${total.toFixed(1)} ms in all.</p>`}
  `;
}
