/** Forms from the API's own description: what a field takes, how it is written, and what is sent for it. */
import { get } from "./api.js";
import { vlans } from "./format.js";

let document = undefined;

/** A schema of the API by its name. */
export async function schemaOf(name) {
  document ??= get("/openapi.json");
  return schemaIn(
    await document.catch((error) => {
      document = undefined;
      throw error;
    }),
    name,
  );
}

/** A schema of an OpenAPI document by its name, with its references resolved. */
export function schemaIn({ components: { schemas } }, name) {
  return resolve(schemas[name], schemas);
}

function resolve(schema, schemas) {
  if (schema === undefined) return {};
  if (schema.$ref) return resolve(schemas[schema.$ref.split("/").at(-1)], schemas);
  if (schema.allOf) return Object.assign({}, ...schema.allOf.map((part) => resolve(part, schemas)));
  const made = { ...schema };
  if (schema.properties) {
    made.properties = Object.fromEntries(
      Object.entries(schema.properties).map(([name, part]) => [name, resolve(part, schemas)]),
    );
  }
  return made;
}

/** How a field is shown: switch, choice, number, list, words or text. */
export function kindOf({ type, enum: choices, anyOf, items }) {
  if (anyOf) return { kind: "words", isNumbers: anyOf.some((part) => part.items?.type === "integer") };
  if (type === "boolean") return { kind: "switch" };
  if (choices) return { kind: "choice", choices };
  if (type === "integer" || type === "number") return { kind: "number" };
  if (type === "array") return { kind: "list", isNumbers: items?.type === "integer" };
  return { kind: "text" };
}

/** The words that a field of many kinds takes beside a list. */
export function wordsOf({ anyOf = [] }) {
  return anyOf.flatMap((part) => part.const === undefined ? part.enum ?? [] : [part.const]);
}

/** A value as it stands in its field. */
export function written(schema, value) {
  const { kind, isNumbers } = kindOf(schema);
  if (kind === "switch") return value === true;
  if (value === undefined || value === null) return "";
  if (Array.isArray(value)) {
    return value.length === 0 && kind === "words" ? "none" : isNumbers ? vlans(value) : value.join(", ");
  }
  return String(value);
}

/** What is sent for what stands in a field. What is no number is sent as it is: the API says why it cannot be. */
export function read(schema, text) {
  const { kind, isNumbers } = kindOf(schema);
  if (kind === "switch" || kind === "choice") return text;
  const said = text.trim();
  if (kind === "number") return said === "" ? null : numberOf(said);
  if (kind === "list") return listOf(said, isNumbers);
  if (kind === "words") return said === "" ? null : wordsOf(schema).includes(said) ? said : listOf(said, isNumbers);
  return said === "" ? null : said;
}

const numberOf = (text) => /^-?\d+$/.test(text) ? Number(text) : text;

function listOf(text, isNumbers) {
  const parts = text.split(/[\s,]+/).filter((part) => part !== "");
  if (!isNumbers) return parts;
  return parts.flatMap((part) => {
    const [, first, last] = /^(\d{1,4})-(\d{1,4})$/.exec(part) ?? [];
    if (first === undefined || Number(last) < Number(first)) return [numberOf(part)];
    return Array.from({ length: Number(last) - Number(first) + 1 }, (_, i) => Number(first) + i);
  });
}
