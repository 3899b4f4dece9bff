/**
 * The PF's line to the vf service, which changes modes. The change is an operation there, with a name that the PF gives
 * it: if an answer does not come, the PF asks about it by that name until it has ended, or until its time is over. If
 * nobody knows of it any more, whether it has come to its end is not known; what is in force is asked for, and told.
 */
import {
  ApiError,
  DEADLINE_HEADER,
  inForceOf,
  isOperation,
  MODE_MS_MAX,
  type ModeRequest,
  type Operation,
  OPERATION_HEADER,
  Peer,
  restarted,
  type Run,
  ServiceRestart,
  type ServiceUpgrade,
  Unanswered,
  type VfMode,
} from "../../shared/api/mod.ts";

/** The vf service answers a change after so long, however far it is. */
const FIRST_ANSWER_S = 1;
/** What an answer takes on its way, at most. */
const ANSWER_MS = 2000;
/** How often it is asked how far a change is. */
const LOOK_MS = 200;
/** It may be away for so long, as it is while it is started again. */
const AWAY_MS_MAX = 5000;

/** The vf service. `port` is `vfs/3` or `vports/3`. */
export class ModeLink {
  readonly #peer: Peer;

  constructor(url: string, token: string | undefined) {
    this.#peer = new Peer("the vf service", url, token);
  }

  get(port: string, timeoutMs?: number): Promise<VfMode> {
    return this.#peer.ask("GET", `/api/v1/${port}/mode`, undefined, timeoutMs);
  }

  /** Has the vf service restarted; answers once another process of it is ready. Throws why it is not. */
  async upgrade(): Promise<ServiceUpgrade> {
    const restart = ServiceRestart.parse(await this.#peer.ask("POST", "/api/v1/upgrade", {}));
    return await restarted("the vf service", this.#peer, restart);
  }

  /** Changes a mode, as operation `run`, which is told how far it is. Throws ApiError with what is in force then. */
  async put(port: string, request: ModeRequest, run: Run): Promise<VfMode> {
    const endsMs = performance.now() + MODE_MS_MAX;
    let answer = await this.#begin(port, request, run);
    for (let heardMs = performance.now();;) {
      const nowMs = performance.now();
      if (answer) {
        heardMs = nowMs;
        run.progress = { ...answer, steps: answer.steps ?? [] };
        if (!isOperation(answer)) return answer;
        if (answer.result) return answer.result;
        if (answer.problem) throw this.#peer.refusal(answer.problem.status, answer.problem);
      }
      if (nowMs - heardMs > AWAY_MS_MAX) throw await this.#lost(port, "does not answer");
      if (nowMs > endsMs) throw await this.#lost(port, `has not ended the change within ${MODE_MS_MAX / 1000} s`);
      await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
      answer = await this.#look(port, run.id);
    }
  }

  /** Asks for the change; nothing if no answer comes. */
  async #begin(port: string, request: ModeRequest, run: Run): Promise<VfMode | Operation | undefined> {
    const headers = {
      prefer: `respond-async, wait=${FIRST_ANSWER_S}`,
      [OPERATION_HEADER]: run.id,
      // Its answer is to be here before the time is over.
      [DEADLINE_HEADER]: String(MODE_MS_MAX - ANSWER_MS / 2),
    };
    const timeoutMs = FIRST_ANSWER_S * 1000 + ANSWER_MS;
    try {
      return await this.#peer.ask("PUT", `/api/v1/${port}/mode`, request, timeoutMs, headers);
    } catch (error) {
      if (error instanceof Unanswered) return undefined;
      // A refusal does not say what was done before it.
      run.progress = await this.#operation(run.id).catch(() => run.progress);
      throw error;
    }
  }

  #operation(id: string): Promise<Operation> {
    return this.#peer.ask("GET", `/api/v1/operations/${id}`, undefined, ANSWER_MS);
  }

  /** How far the change is; nothing if no answer comes. */
  async #look(port: string, id: string): Promise<Operation | undefined> {
    try {
      return await this.#operation(id);
    } catch (error) {
      if (error instanceof Unanswered) return undefined;
      if ((error as ApiError).status !== 404) throw error;
      throw await this.#lost(port, "has ended meanwhile, or has not got the request");
    }
  }

  /** What is said of a change whose end is not known. */
  async #lost(port: string, why: string): Promise<ApiError> {
    const inForce = await this.get(port, ANSWER_MS).then(inForceOf, () => null);
    const detail = `the vf service ${why}: whether the change was completed is not known`;
    return new ApiError(503, detail, undefined, "interrupted", inForce);
  }
}
