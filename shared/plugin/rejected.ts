/** Why a plugin image is refused: each reason has a name, which the APIs show and programs can tell apart. */

/** Names of what can be wrong with an image (docs/plugin-api.md, "Images"). */
export type RejectionCode =
  | "not-wasm"
  | "too-large"
  | "too-complex"
  | "unsigned"
  | "unknown-key"
  | "bad-signature"
  | "bad-metadata"
  | "abi-mismatch"
  | "licence-missing"
  | "licence-not-allowed"
  | "import-not-allowed"
  | "import-missing"
  | "export-missing"
  | "export-not-allowed"
  | "wrong-signature"
  | "own-memory"
  | "start-function"
  | "section-not-allowed"
  | "type-not-allowed"
  | "instruction-not-allowed"
  | "not-canonical";

/** An image that is not taken, with the name of the reason. */
export class PluginRejected extends Error {
  override readonly name = "PluginRejected";
  readonly code: RejectionCode;

  constructor(code: RejectionCode, message: string) {
    super(message);
    this.code = code;
  }
}
