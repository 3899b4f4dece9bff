/** Whoever has started `up` by way of npx: the fabric ends with it, however it ends. */

const CHECK_MS = 500;

/** Pid of the parent of `pid`, and what it runs; `undefined` if it is gone. */
function look(pid: number): { parent: number; command: string } | undefined {
  try {
    const stat = Deno.readTextFileSync(`/proc/${pid}/stat`);
    const command = Deno.readTextFileSync(`/proc/${pid}/cmdline`).replaceAll("\0", " ");
    // The name, in parentheses, may have blanks and parentheses in it.
    return { parent: Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[1]), command };
  } catch {
    return undefined;
  }
}

/** The npx above this process, if there is one. It may be killed without a word to those below. */
export function npxAbove(): number | undefined {
  for (let pid = Deno.ppid; pid > 1;) {
    const found = look(pid);
    if (!found) return undefined;
    if (/\bnpx\b|^npm exec\b|\bnpm exec\b/.test(found.command)) return pid;
    pid = found.parent;
  }
  return undefined;
}

/** Calls `gone` when process `pid` has ended; answers how to stop looking. */
export function whenGone(pid: number, gone: () => void): () => void {
  const command = look(pid)?.command;
  const timer = setInterval(() => {
    if (command !== undefined && look(pid)?.command === command) return;
    clearInterval(timer);
    gone();
  }, CHECK_MS);
  return () => clearInterval(timer);
}
