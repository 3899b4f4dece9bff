/** Steps that happen one after the other, in the order in which they were asked for. */
export class Turns {
  #last: Promise<unknown> = Promise.resolve();

  /** Does a step when all before it have ended, well or not; answers or throws what it does. */
  take<T>(step: () => Promise<T>): Promise<T> {
    const done = this.#last.then(step);
    this.#last = done.catch(() => {});
    return done;
  }

  /** Resolves when every step so far has ended. */
  get settled(): Promise<unknown> {
    return this.#last;
  }
}
