/** Text that somebody else has written, as it can be shown. */

/** `text` without what a terminal would obey, and no longer than `charactersMax`. */
export function showable(text: string, charactersMax: number): string {
  return text.slice(0, charactersMax).replaceAll(/[\p{Cc}\p{Cf}\p{Co}\p{Cs}\p{Zl}\p{Zp}]/gu, "?");
}
