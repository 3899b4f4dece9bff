/** A real Chromium for a test, in which names of the attacker's choice lead to this machine. */
import puppeteer, { type Browser } from "puppeteer-core";

/** The name of a page that has had its name resolved to 127.0.0.1 (DNS rebinding). */
export const EVIL_HOST = "evil.example";

/** Starts a browser without a window. It ends with `close`. */
export async function startBrowser(): Promise<Browser> {
  return await puppeteer.launch({
    executablePath: "/usr/bin/chromium",
    headless: true,
    args: [
      "--no-sandbox",
      "--disable-dev-shm-usage",
      "--disable-background-networking",
      "--no-first-run",
      `--host-resolver-rules=MAP ${EVIL_HOST} 127.0.0.1`,
    ],
  });
}
