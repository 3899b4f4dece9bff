/**
 * A health check for containers: ends with 0 if the service on port `PORT` of this machine is ready; else it says why not
 * (`docker inspect` shows it). It is started every few seconds, so it does as little as it can: `fetch` alone would take
 * as long again.
 */
const connection = await Deno.connect({ hostname: "127.0.0.1", port: Number(Deno.args[0]) });
await connection.write(new TextEncoder().encode("GET /readyz HTTP/1.0\r\nhost: localhost\r\n\r\n"));
const answer = await new Response(connection.readable).text();
if (/^HTTP\/1\.[01] 200 /.test(answer)) Deno.exit(0);
console.log(answer.split("\r\n\r\n")[1] ?? "");
Deno.exit(1);
