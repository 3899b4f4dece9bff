/** What all commands have: the fabric that they speak to, and how they show what it says. */
import type { Command } from "commander";
import { stringify } from "yaml";
import {
  isOperation,
  oneLine,
  type Operation,
  Peer,
  pfClient,
  print,
  type Problem,
  type Vf,
  type VfMode,
  type VfStats,
} from "../../shared/api/mod.ts";
import { Progress, type ProgressOptions } from "../../shared/terminal/progress.ts";
import { findFabric, type FindOptions, findRunDir, type FoundFabric, saidUrl } from "./find.ts";
import { inWords, UsageError } from "./values.ts";

/** How answers are shown. */
export const OUTPUTS = ["table", "wide", "json", "yaml"] as const;
type Output = typeof OUTPUTS[number];

/** What a command ends with that was not understood, or that could not look (`diff`, `doctor`). */
export const EXIT_TROUBLE = 2;

/** Ended by SIGPIPE, as shells say it. */
export const EXIT_SIGPIPE = 128 + 13;

/** How long a change is waited for before it is looked at, and how often it is looked at then. */
export const PREFER = { headers: { prefer: "respond-async, wait=1" } };
const LOOK_MS = 250;

/** Options of `fabric` itself. */
export interface GlobalOptions extends FindOptions {
  json: boolean;
  output: Output;
}

type Client = ReturnType<typeof pfClient>;

/** An answer of the API, as the typed client gives it. */
type Answer = Promise<{ ok: boolean; status: number; json(): Promise<unknown> }>;

/** The running command's surroundings. */
export class Context {
  readonly #program: Command;
  #found: FoundFabric | undefined;
  /** What the command ends with if it fails: 1, unless that is one of its answers. */
  failureCode = 1;
  /** What the command waits for: shown to people, never where a program reads the answer. */
  readonly progress: Progress;

  /** `open`: shows a line instead of the terminal. */
  constructor(program: Command, open: Pick<ProgressOptions, "open"> = {}) {
    this.#program = program;
    this.progress = new Progress({ isWanted: () => this.#isForPeople, ownsSignals: true, ...open });
    // Every command has it; those that know more say more.
    program.hook("preAction", (_, command) => this.progress.say(nameOf(command)));
    program.hook("postAction", () => this.progress.stop());
  }

  get #isForPeople(): boolean {
    return this.output === "table" || this.output === "wide";
  }

  get #options(): GlobalOptions {
    return this.#program.opts<GlobalOptions>();
  }

  /** The run directory that was said, or that of this user's fabric; a fabric need not run there. */
  get runDir(): string | undefined {
    return findRunDir(this.#options);
  }

  get fabric(): FoundFabric {
    return this.#found ??= findFabric(this.#options);
  }

  get client(): Client {
    return pfClient(this.fabric.api, this.fabric.token);
  }

  get output(): Output {
    return this.#options.json ? "json" : this.#options.output;
  }

  /** Another service of the fabric: so many ports behind the PF's, or where its variable says. */
  service(name: string, offset: number, variable: string): Peer {
    const url = new URL(this.fabric.api);
    const said = Deno.env.get(variable);
    if (!said && url.port === "") {
      throw new UsageError(
        `${url.origin} names no port, so it is not known where ${name} is: set ${variable} to its URL`,
      );
    }
    url.port = String(Number(url.port) + offset);
    return new Peer(name, said ? saidUrl(variable, said) : url.origin, this.fabric.token);
  }

  get pf(): Peer {
    return new Peer("the fabric", this.fabric.api, this.fabric.token);
  }

  get vf(): Peer {
    return this.service("the vf service", 2, "RINGFABRIC_VF");
  }

  get vhost(): Peer {
    return this.service("the vhost service", 1, "RINGFABRIC_VHOST");
  }

  /** The body of an answer; throws what the API says if it is a refusal. */
  async body<T>(answer: Answer): Promise<T> {
    const { api, runDir } = this.fabric;
    let response;
    try {
      response = await answer;
    } catch (cause) {
      throw new UsageError(
        `no fabric answers at ${api} (${oneLine(cause)}); start one with: npx -y deno@2.9.6 task up`,
      );
    }
    const value = await response.json().catch(() => {
      throw new UsageError(`what answers at ${api} is no fabric: it says HTTP ${response.status}, and not in JSON`);
    });
    if (response.status === 401) {
      throw new UsageError(
        `the fabric at ${api} does not take this token: set RINGFABRIC_TOKEN, or name its run directory with --run-dir` +
          (runDir === undefined ? "" : ` (looked for in ${runDir})`),
      );
    }
    if (!response.ok) throw new UsageError(failureOf(value as Partial<Problem>, `HTTP ${response.status}`));
    return value as T;
  }

  /** The result of a change that may be an operation: followed to its end. Throws its problem if it fails. */
  async outcome(answer: Answer): Promise<VfMode> {
    let found = await this.body<VfMode | Operation>(answer);
    while (isOperation(found)) {
      if (found.result) return found.result;
      if (found.problem) throw new UsageError(failureOf(found.problem, "it has failed"));
      this.progress.say(progressOf(found));
      await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
      const { operations } = this.client.api.v1;
      found = await this.body<Operation>(operations[":id"].$get({ param: { id: found.id } }));
    }
    return found;
  }

  getVf(id: number): Promise<Vf> {
    return this.body(this.client.api.v1.vfs[":id"].$get({ param: { id: String(id) } }));
  }

  getStats(id: number): Promise<VfStats> {
    return this.body(this.client.api.v1.vfs[":id"].stats.$get({ param: { id: String(id) } }));
  }

  /** Shows an answer as it was asked for; `text` makes the table. */
  show(value: unknown, text: (wide: boolean) => string): void {
    this.progress.stop();
    const { output } = this;
    if (output === "json") print(JSON.stringify(value));
    else if (output === "yaml") print(stringify(value).trimEnd());
    else print(text(output === "wide"));
  }
}

/** `vf mode`, as it is typed. */
function nameOf(command: Command): string {
  return command.parent?.parent ? `${nameOf(command.parent)} ${command.name()}` : command.name();
}

/** How far an operation is, in a line. */
function progressOf({ what, now, steps }: Operation): string {
  return [what, ...(now === undefined ? [] : [now]), ...(steps.length > 0 ? [`${steps.length} done`] : [])].join(" · ");
}

/** Why something is refused or has failed, and which mode is in force after that. */
export function failureOf({ detail, inForce }: Partial<Problem>, otherwise: string): string {
  const said = inWords(detail ?? otherwise);
  if (inForce === undefined) return said;
  if (inForce === null) return `${said}; which mode it is in now is not known`;
  const { mode, plugin, version } = inForce;
  return `${said}; it is in ${mode} mode${plugin === undefined ? "" : `, plugin ${plugin} ${version}`}`;
}

/** The parameter of a path that names a VF or a vport. */
export function byId(id: number): { param: { id: string } } {
  return { param: { id: String(id) } };
}

/** Adds examples to a command's help. */
export function examples(command: Command, ...lines: string[]): Command {
  return command.addHelpText("after", `\nExamples:\n${lines.map((line) => `  $ fabric ${line}`).join("\n")}`);
}
