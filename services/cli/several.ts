/** One command for several VFs or vports: all of them are there before the first one changes. */
import { oneLine } from "../../shared/api/mod.ts";
import { parseIds, UsageError } from "./values.ts";

/** What several of something are asked with. */
export interface SeveralParts<T> {
  /** What they are: `vf` or `vport`. */
  kind: string;
  /** The numbers of those that there are. */
  list(): Promise<number[]>;
  change(id: number): Promise<T>;
}

/**
 * Changes those that `text` names (`3`, `0,2-3` or `all`), one after the other. Throws with nothing changed if one is not
 * there; if one is refused it says which ones have changed before.
 */
export async function changeSeveral<T>(text: string, { kind, list, change }: SeveralParts<T>): Promise<T[]> {
  const said = parseIds(text);
  // A single one is refused by the API, in its own words; and a token for that one may not see the others.
  const known = said?.length === 1 ? said : await list();
  const ids = said ?? known;
  const missing = ids.find((id) => !known.includes(id));
  if (missing !== undefined) {
    throw new UsageError(
      `there is no ${kind} ${missing}; there are: ${known.join(", ") || "none"}. Nothing has changed`,
    );
  }
  const changed: T[] = [];
  for (const id of ids) {
    try {
      changed.push(await change(id));
    } catch (error) {
      if (ids.length === 1) throw error;
      const before = ids.slice(0, changed.length);
      const rest = before.length === 0 ? "nothing has changed" : `changed already: ${kind} ${before.join(", ")}`;
      throw new UsageError(`${kind} ${id}: ${oneLine(error)}; ${rest}`);
    }
  }
  return changed;
}
