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

/** Reads a list of CPUs such as `0,2-3`. */
export function cpuList(text: string): number[] {
  return text.split(",").filter((part) => part !== "").flatMap((part) => {
    const match = /^(\d{1,4})(?:-(\d{1,4}))?$/.exec(part.trim());
    const [from, to] = [Number(match?.[1]), Number(match?.[2] ?? match?.[1])];
    if (!match || to < from) throw new InvalidArgumentError("It is a list of CPUs such as 0,2-3.");
    return Array.from({ length: to - from + 1 }, (_, i) => from + i);
  });
}

/** Collects the values of an option that may be repeated. */
export function list(value: string, before: string[] = []): string[] {
  return [...before, value];
}
