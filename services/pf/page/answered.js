/**
 * What the API has answered to a form's changes. An answer is newer than the live stream for a moment: the stream still
 * tells of the policies before it, one after the other if changes follow each other quickly.
 */

/** A document that was made so long after another one knows all that was answered when the first was the latest. */
const STREAM_BEHIND_MS = 2000;

/** Keeps `answer` ({value, tag}) to a change of the policy with tag `of`, which came while the stream was at `at`. */
export function keepAnswer(kept, { value, tag }, of, at) {
  return { value, tag, at, older: [...(kept?.older ?? []), of].filter((one) => one !== tag) };
}

/** The policy in force, as {value, tag}: the answer, until the stream (`streamed`, made at `at`) has caught up with it. */
export function newest(kept, streamed, at) {
  const isBehind = kept !== undefined && at - kept.at < STREAM_BEHIND_MS && kept.older.includes(streamed.tag);
  return isBehind ? kept : streamed;
}
