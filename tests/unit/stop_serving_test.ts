/** The end of a service's API: who listens to its events does not hold it up, and what is being answered is answered. */
import "../support/quiet.ts";
import { assert, assertEquals } from "@std/assert";
import { createApp, eventStream, readEvents, serve, stopServing, urlOf } from "../../shared/api/mod.ts";

/** A service with events, and with a question that is answered when `answer` resolves. */
function start(answer: Promise<string>, asked: () => void) {
  const app = createApp(undefined);
  app.get("/events", (c) => eventStream(c, () => () => {}));
  app.get("/question", async (c) => {
    asked();
    return c.text(await answer);
  });
  const server = serve(app, { hostname: "127.0.0.1", port: 0 });
  let isOver = false;
  void server.finished.then(() => isOver = true);
  return { server, url: urlOf(server.addr), isOver: () => isOver };
}

Deno.test("streams of events end with their service, which waits for none of them", async () => {
  const { server, url, isOver } = start(Promise.resolve(""), () => {});
  const opened = Promise.withResolvers<void>();
  const heard = Array.fromAsync(readEvents(`${url}/events`, {}, () => opened.resolve()));
  await opened.promise;
  await stopServing(server);
  assert(isOver(), "it gave up waiting");
  assertEquals(await heard, []);
});

Deno.test("what is being answered when a service ends is answered", async () => {
  const [answer, asked] = [Promise.withResolvers<string>(), Promise.withResolvers<void>()];
  const { server, url, isOver } = start(answer.promise, () => asked.resolve());
  const said = fetch(`${url}/question`).then((response) => response.text());
  await asked.promise;
  const stopped = stopServing(server);
  answer.resolve("so it is");
  assertEquals(await said, "so it is");
  await stopped;
  assert(isOver());
});
