/** Completion for shells: a script for each, which asks `fabric complete` what may come next. */
import { type Command, Option } from "commander";
import { print } from "../../shared/api/mod.ts";
import { NotUnderstood } from "./values.ts";

/** The scripts. They hand the typed words on as they are, and evaluate none. */
const SCRIPTS = new Map(Object.entries({
  bash: `_fabric() {
  local IFS=$'\\n'
  mapfile -t COMPREPLY < <(fabric complete -- "\${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
}
complete -F _fabric fabric`,
  zsh: `#compdef fabric
_fabric() {
  local -a found
  found=("\${(@f)$(fabric complete -- "\${(@)words[2,CURRENT]}" 2>/dev/null)}")
  compadd -a found
}
compdef _fabric fabric`,
  fish: `complete -c fabric -f -a '(fabric complete -- (commandline -opc)[2..-1] (commandline -ct) 2>/dev/null)'`,
}));

/** What may come next after `words`, of which the last has only begun. */
export function completions(program: Command, words: readonly string[]): string[] {
  const begun = words.at(-1) ?? "";
  let command = program;
  for (const word of words.slice(0, -1)) command = command.commands.find((one) => one.name() === word) ?? command;
  const names = command.commands.map((one) => one.name()).filter((name) => name !== "complete");
  const options = [...command.options, ...(command === program ? [] : program.options)].filter((one: Option) =>
    !one.hidden
  )
    .flatMap(({ long }) => long ?? []);
  return [...names, ...(begun.startsWith("-") ? [...options, "--help"] : [])].filter((name) => name.startsWith(begun));
}

/** Adds `completion`, and `complete`, which the scripts call. */
export function completionCommands(program: Command): void {
  program.command("completion <shell>").description("a script that completes this command: bash, zsh or fish")
    .addHelpText("after", "\nExamples:\n  $ fabric completion bash > ~/.local/share/bash-completion/completions/fabric")
    .action((shell: string) => {
      const script = SCRIPTS.get(shell);
      if (!script) throw new NotUnderstood(`${shell}: there is completion for ${[...SCRIPTS.keys()].join(", ")}`);
      print(script);
    });
  program.command("complete [words...]", { hidden: true }).allowUnknownOption().action((words: string[]) => {
    for (const word of completions(program, words)) print(word);
  });
}
