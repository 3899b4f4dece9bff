/** A form of the API's schema: every field is there, and what is refused is said at its field, in the API's words. */
import { kindOf, read, schemaOf, wordsOf, written } from "./schema.js";
import { Component, html, useEffect, useState } from "./vendor/preact.js";

/** Fields that belong together, in the order in which they are shown; what is in none of them comes last. */
const GROUPS = [
  ["Address", ["mac", "macFixed", "spoofCheck", "allowedMacs", "allowedIps"]],
  ["VLAN", ["vlan", "qos", "vlanProto", "trunk", "nativeVlan"]],
  ["Trust and link", ["trust", "promisc", "linkState", "mtu", "queuePairs", "hardware", "mirror"]],
  ["Rates", ["minTxRate", "maxTxRate", "maxBroadcastRate"]],
  ["Multicast", ["multicast", "guestMulticast"]],
  ["Interrupts", ["adaptiveRx", "rxUsecs", "rxFrames", "adaptiveTx", "txUsecs", "txFrames"]],
];

function grouped(names) {
  const known = GROUPS.map(([title, list]) => [title, list.filter((name) => names.includes(name))]);
  const others = names.filter((name) => !GROUPS.some(([, list]) => list.includes(name)));
  const all = [...known, ["Other", others]].filter(([, list]) => list.length > 0);
  return all.length === 1 ? [[undefined, all[0][1]]] : all;
}

/** A schema of the API, once it has come. */
export function useSchema(name) {
  const [schema, setSchema] = useState(undefined);
  useEffect(() => {
    let isGone = false;
    schemaOf(name).then((found) => !isGone && setSchema(found), () => {});
    return () => (isGone = true);
  }, [name]);
  return schema;
}

/**
 * The form. `value`: what is in force; `send` takes the changed fields and throws a Refusal; `always`: fields that are
 * sent even if they have not changed; `label`: what the button says; `fixed`: fields that this token cannot change.
 */
export class Form extends Component {
  constructor() {
    super();
    this.state = { edits: {}, errors: {}, refused: undefined, isBusy: false, done: "" };
  }

  edit(name, text) {
    const { [name]: _, ...errors } = this.state.errors;
    const { schema, value } = this.props;
    const edits = { ...this.state.edits, [name]: text };
    if (text === written(schema.properties[name], value[name])) delete edits[name];
    this.setState({ edits, errors, done: "" });
  }

  async submit(event) {
    event.preventDefault();
    const { schema, value, send, always = [], done = "In force." } = this.props;
    const { edits } = this.state;
    const body = {};
    for (const name of always) {
      body[name] = read(schema.properties[name], edits[name] ?? written(schema.properties[name], value[name]));
    }
    for (const [name, text] of Object.entries(edits)) body[name] = read(schema.properties[name], text);
    this.setState({ isBusy: true, refused: undefined, errors: {} });
    try {
      await send(body);
      this.setState({ edits: {}, errors: {}, isBusy: false, done });
    } catch (error) {
      this.setState({ isBusy: false, done: "", ...refusalOf(error, schema.properties) }, () => {
        this.base?.querySelector("[aria-invalid=true]")?.focus();
      });
    }
  }

  render({ schema, value, canEdit, id, label, fixed = [] }, { edits, errors, refused, isBusy, done }) {
    const names = Object.keys(schema.properties);
    const changed = Object.keys(edits).length;
    return html`
      <form class="fields" noValidate onSubmit=${(event) => this.submit(event)}>
        <div class="groups">${grouped(names).map(([title, list]) =>
          html`
            <fieldset key=${title}>
              ${title && html`<legend>${title}</legend>`}
              ${list.map((name) =>
                html`
                  <${Field} key=${name} id=${`${id}-${name}`} name=${name} schema=${schema
                    .properties[name]} canEdit=${canEdit && !fixed.includes(name)} isFixed=${canEdit &&
                    fixed.includes(name)}
                    text=${edits[name] ?? written(schema.properties[name], value[name])} isChanged=${name in edits}
                    error=${errors[name]} onEdit=${(text) => this.edit(name, text)} />
                `
              )}
            </fieldset>
          `
        )}</div>
        ${canEdit && html`
          <div class="actions">
            <button type="submit" class="main" disabled=${isBusy || (changed === 0 && !this.props.always)}>
              ${label ?? (changed > 1 ? `Apply ${changed} changes` : "Apply")}</button>
            <button type="button" disabled=${changed === 0}
              onClick=${() => this.setState({ edits: {}, errors: {}, refused: undefined, done: "" })}>Discard</button>
            <p class="refused" role="alert">${refused}</p>
            <p class="done" role="status">${done}</p>
          </div>
        `}
      </form>
    `;
  }
}

/** What was refused, by field; and what is no field's. */
function refusalOf(error, properties) {
  const said = error.problem?.errors ??
    (error.problem?.field ? [{ field: error.problem.field, detail: error.message }] : []);
  const errors = {};
  const others = [];
  for (const { field, detail } of said) {
    const [name] = field.split(".");
    if (name in properties) errors[name] ??= detail;
    else others.push(["body", "authorization", "if-match"].includes(field) ? detail : `${field}: ${detail}`);
  }
  const isNamed = Object.keys(errors).length > 0;
  return { errors, refused: others.join("; ") || (isNamed ? "Refused: nothing has changed." : error.message) };
}

function Field({ id, name, schema, text, canEdit, isFixed, isChanged, error, onEdit }) {
  const { kind, choices } = kindOf(schema);
  // In a form a value of null is an empty field.
  const description = schema.description?.replace(/\bnull:/, "empty:");
  const describedBy = [description && `${id}-help`, error && `${id}-error`].filter(Boolean).join(" ") || undefined;
  const common = { id, name, "aria-invalid": error ? "true" : undefined, "aria-describedby": describedBy };
  const typed = (event) => onEdit(event.target.value);
  let control;
  if (!canEdit) control = html`<output id=${id}>${kind === "switch" ? text ? "on" : "off" : text || "–"}</output>`;
  else if (kind === "switch") {
    control = html`<input type="checkbox" ...${common} checked=${text} onChange=${(event) =>
      onEdit(event.target.checked)} />`;
  } else if (kind === "choice") {
    control = html`
      <select ...${common} value=${text} onChange=${typed}>
        ${text === "" && html`<option value="">as it is</option>`}
        ${choices.map((choice) => html`<option value=${choice} selected=${choice === text}>${choice}</option>`)}
      </select>
    `;
  } else {
    control = html`
      <input type="text" ...${common} value=${text} onInput=${typed} spellcheck="false" autocomplete="off"
        inputmode=${kind === "number" ? "numeric" : undefined} placeholder=${placeholderOf(schema, kind)} />
    `;
  }
  return html`
    <div class=${`field ${kind} ${isChanged ? "changed" : ""} ${error ? "wrong" : ""}`}>
      <label for=${id}>${name}</label>
      ${control}
      ${error && html`<p id=${`${id}-error`} class="refused">${error}</p>`}
      ${isFixed && html`<p class="help">An operator's to set</p>`}
      ${description && html`<p id=${`${id}-help`} class="help">${description}</p>`}
    </div>
  `;
}

function placeholderOf(schema, kind) {
  if (kind === "words") return `${wordsOf(schema).join(", ")}, or a list`;
  if (kind === "list") return "none";
  return schema.example && `none, or such as ${schema.example}`;
}
