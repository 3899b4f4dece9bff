/** Run with a service's permissions, and paths as arguments: prints which of them it may read, and which it may write. */
const may = (name: "read" | "write") =>
  Deno.args.filter((path) => Deno.permissions.querySync({ name, path }).state === "granted");
console.log(JSON.stringify({ read: may("read"), write: may("write") }));
