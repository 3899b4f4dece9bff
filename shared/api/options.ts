/** Values of command-line options that several services take: read, or refused with what they may be. */
import { InvalidArgumentError } from "commander";

/** A reader of whole numbers from `min` to `max`. */
export function wholeNumber(min: number, max: number): (text: string) => number {
  return (text) => {
    const n = Number(text);
    if (!/^\d+$/.test(text) || n < min || n > max) {
      throw new InvalidArgumentError(`It is a number from ${min} to ${max}.`);
    }
    return n;
  };
}

/** A reader of numbers from `min` to `max`, which may have decimals. */
export function decimal(min: number, max: number): (text: string) => number {
  return (text) => {
    const n = Number(text);
    if (!/^\d+(\.\d+)?$/.test(text) || n < min || n > max) {
      throw new InvalidArgumentError(`It is a number from ${min} to ${max}.`);
    }
    return n;
  };
}

/** A list of numbers below 10,000 such as `0,2-3`; `undefined` if it is none. */
export function numberList(text: string): number[] | undefined {
  const numbers: number[] = [];
  for (const part of text.split(",")) {
    const match = /^(\d{1,4})(?:-(\d{1,4}))?$/.exec(part.trim());
    const [from, to] = [Number(match?.[1]), Number(match?.[2] ?? match?.[1])];
    if (!match || to < from) return undefined;
    for (let n = from; n <= to; n++) numbers.push(n);
  }
  return numbers;
}

/** Reads a list of CPUs such as `0,2-3`. */
export function cpuList(text: string): number[] {
  const cpus = numberList(text);
  if (!cpus) throw new InvalidArgumentError("It is a list of CPUs such as 0,2-3.");
  return cpus;
}

/** Reads a path: an empty one would be the directory that the command happens to be started in. */
export function path(text: string): string {
  if (text === "") throw new InvalidArgumentError("It is a path, and not empty.");
  return text;
}

/** A reader of text that is said once: the last one would win without a word. */
export function once(text: string, before?: string): string {
  if (before !== undefined) throw new InvalidArgumentError("It is said twice: say it once.");
  return text;
}

/** Collects the values of an option that may be repeated. */
export function list(value: string, before: string[] = []): string[] {
  return [...before, value];
}
