/**
 * Places that are few, such as those of listeners: whoever has a VF's token gets some of them, and all who have such a token
 * get no more than a part, so that there is one for the operator whatever they do.
 */
import type { Context } from "hono";
import type { TokenEntry } from "./access.ts";
import { ApiError } from "./problem.ts";

/** How many there are; how many whoever has one VF may have, and all of those together. */
export interface PlacesOptions {
  all: number;
  perVf: number;
  allVfs: number;
  /** What has a place, in the plural. */
  what: string;
}

/** Places of one kind. The fabric's own services need none. */
export class Places {
  readonly #options: PlacesOptions;
  /** Those that are taken, by the VF of whoever has them; -1: others'. */
  readonly #taken: number[] = [];

  constructor(options: PlacesOptions) {
    this.#options = options;
  }

  /** Takes one for whoever sends the request; answers how to give it back. Throws ApiError if there is none for them. */
  take(c: Pick<Context, "get">): () => void {
    const token: TokenEntry | undefined = c.get("token");
    if (token === undefined || token.role === "service") return () => {};
    const { all, perVf, allVfs, what } = this.#options;
    const place = token.role === "vf" ? token.vf : -1;
    const own = this.#taken.filter((one) => one === place).length;
    const vfs = this.#taken.filter((one) => one >= 0).length;
    if (place >= 0 && own >= perVf) throw new ApiError(503, `vf ${place} has ${own} ${what} already: end one first`);
    if (this.#taken.length >= all || (place >= 0 && vfs >= allVfs)) {
      throw new ApiError(503, `${this.#taken.length} ${what} are there already: end one first`);
    }
    this.#taken.push(place);
    let isTaken = true;
    return () => {
      if (isTaken) this.#taken.splice(this.#taken.indexOf(place), 1);
      isTaken = false;
    };
  }
}
