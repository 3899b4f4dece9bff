/** What of the host is behind a pool, to be changed in the API's short form; what is refused is said at the field. */
import { change } from "./api.js";
import { specOf } from "./format.js";
import { html, useState } from "./vendor/preact.js";

/** A spec in the short form that the API takes; "": it says more than the short form can. */
function shortOf(spec) {
  const { kind, name, interface: device, replay, ...more } = spec;
  return Object.values(more).some((value) => value !== undefined)
    ? ""
    : specOf({ kind, name, interface: device, replay });
}

/** The form. `path`: where the API takes it; `id`: that of its field; `spec`: what is in force. */
export function UplinkForm({ path, id, spec }) {
  const [edit, setEdit] = useState(undefined);
  const [said, setSaid] = useState({});
  const now = shortOf(spec);
  const submit = async (event) => {
    event.preventDefault();
    try {
      await change("PUT", path, edit.trim());
      setEdit(undefined);
      setSaid({ done: "In force." });
    } catch (error) {
      setSaid({ refused: error.message });
    }
  };
  const type = ({ target }) => {
    setEdit(target.value === now ? undefined : target.value);
    setSaid({});
  };
  return html`
    <form class="inline" onSubmit=${submit}>
      <label for=${id}>Behind it</label>
      <input id=${id} type="text" spellcheck="false" autocomplete="off" value=${edit ?? now}
        aria-describedby=${`${id}-help ${id}-refused`} aria-invalid=${said.refused ? "true" : undefined}
        onInput=${type} />
      <button type="submit" class="main" disabled=${edit === undefined}>Apply</button>
      <p id=${`${id}-help`} class="help">tap:NAME, packet:IFACE, xdp:IFACE, pcap:FILE or none</p>
      <p id=${`${id}-refused`} class="refused" role="alert">${said.refused}</p>
      <p class="done" role="status">${said.done}</p>
    </form>
  `;
}

/** A VF that the host drives instead of a guest: what is behind it, and a form to change that. */
export function BindCard({ path, uplink, canEdit }) {
  const { spec, state, reason } = uplink ?? { spec: { kind: "none" } };
  return html`
    <section class="card" aria-labelledby="bind-title">
      <h2 id="bind-title">Or bind it to the host <small>while no guest drives it</small></h2>
      <p class="fact">${uplink && html`<i class=${`lamp ${state === "up" ? "up" : "down"}`}></i>`}
        <b>${specOf(spec)}</b>${uplink ? state ?? "not known" : "nothing of the host is behind it"}</p>
      ${reason && html`<p class="refused">${reason}</p>`}
      ${canEdit && html`<${UplinkForm} path=${`${path}/uplink`} id="bind-spec" spec=${spec} />`}
    </section>
  `;
}
