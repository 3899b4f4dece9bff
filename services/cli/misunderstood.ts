/** What commander says of words that it does not understand, as this command line says things: who, what, what to do. */
import type { Command } from "commander";

/** The innermost command that `words` name, and what follows it. */
function commandOf(program: Command, words: readonly string[]): { command: Command; rest: string[] } {
  let command = program;
  let rest = [...words];
  for (const [at, word] of words.entries()) {
    const next = command.commands.find((one) => one.name() === word);
    if (next) [command, rest] = [next, words.slice(at + 1)];
  }
  return { command, rest };
}

function fullName(command: Command): string {
  return command.parent ? `${fullName(command.parent)} ${command.name()}` : command.name();
}

/** One sentence of commander's, with the command's name before it and where help is behind it. Pure. */
export function notUnderstood(program: Command, words: readonly string[], text: string): string {
  const { command, rest } = commandOf(program, words);
  const name = fullName(command);
  const said = text.replace(/^error: /, "").trimEnd();
  // A command that shows something if nothing else is said takes a wrong word for an argument of that.
  const word = rest.find((one) => !one.startsWith("-"));
  const isWord = command.commands.length > 0 && said.startsWith("too many arguments") && word !== undefined;
  const what = isWord ? `unknown command '${word}'` : said;
  return `${program.name()}: ${what.replace(/\n\((.*)\)$/, "; $1").replace(/\.$/, "")} (${name} --help)\n`;
}
