/** JSON merge patches (RFC 7396): what turns one document into the next. Pure. */

type Members = Record<string, unknown>;

function isObject(value: unknown): value is Members {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** A document without members that are null or undefined: a patch says null for a member that has gone. */
export function withoutNulls(value: unknown): unknown {
  if (!isObject(value)) return value;
  const members = Object.entries(value).filter(([, member]) => member !== null && member !== undefined);
  return Object.fromEntries(members.map(([name, member]) => [name, withoutNulls(member)]));
}

/** The patch that makes `after` of `before`, neither of which has nulls; none if they are the same. */
export function mergePatch(before: unknown, after: unknown): unknown {
  if (!isObject(before) || !isObject(after)) {
    const isSame = before === after ||
      (typeof before === "object" && JSON.stringify(before) === JSON.stringify(after));
    return isSame ? undefined : after;
  }
  const patch: Members = {};
  for (const name of Object.keys(before)) if (!(name in after)) patch[name] = null;
  for (const [name, member] of Object.entries(after)) {
    const change = mergePatch(before[name], member);
    if (change !== undefined) patch[name] = change;
  }
  return Object.keys(patch).length > 0 ? patch : undefined;
}
