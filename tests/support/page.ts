/** The fabric's page in a real browser, for a test: what it shows, what is typed into it, and what it complains of. */
import axe from "axe-core";
import type { Browser, Page } from "puppeteer-core";
import type { TestFabric } from "./fabric.ts";
import { TEST_TOKEN } from "./token.ts";
import { until } from "./wait.ts";

/** How long the page may take for what is awaited of it; services that come back are among that. */
const DEADLINE_MS = 20_000;

/** Where the pictures of a test are left. */
const SHOTS = new URL("../../.build/screenshots/", import.meta.url);

/** An open page. */
export class FabricPage {
  readonly page: Page;
  readonly #fabric: TestFabric;
  /** What the page has thrown or the browser has refused it, and requests to anybody else. */
  readonly complaints: string[] = [];

  private constructor(page: Page, fabric: TestFabric) {
    this.page = page;
    this.#fabric = fabric;
    page.on("pageerror", (error) => this.complaints.push(String(error)));
    page.on("console", (message) => {
      // The API's refusals are shown on the page; the browser says them once more.
      const isRefusal = /responded with a status of (401|403|422|503)|ERR_CONNECTION|ERR_INCOMPLETE/.test(
        message.text(),
      );
      if (["error", "warn"].includes(message.type()) && !isRefusal) this.complaints.push(message.text());
    });
    page.on("request", (request) => {
      if (!request.url().startsWith(`${fabric.info.api}/`)) this.complaints.push(`asks for ${request.url()}`);
    });
  }

  /** Opens the page, logged in with `token`; without one it asks for it. */
  static async open(browser: Browser, fabric: TestFabric, token: string | undefined = TEST_TOKEN): Promise<FabricPage> {
    const opened = new FabricPage(await browser.newPage(), fabric);
    await opened.page.setViewport({ width: 1360, height: 900 });
    await opened.page.goto(`${fabric.info.api}/${token === "" ? "" : `#token=${token}`}`);
    return opened;
  }

  /** Goes to a view, and waits until it is there. */
  async go(hash: string, heading: string): Promise<void> {
    await this.find(`location.hash = ${JSON.stringify(hash)}`);
    await this.see("h1", heading);
  }

  /** Waits until what a selector finds shows some text. */
  async see(selector: string, text: string | RegExp): Promise<void> {
    let there: string[] = [];
    const look = async () => {
      there = await this.texts(selector);
      return there.some((shown) => typeof text === "string" ? shown.includes(text) : text.test(shown));
    };
    await until(`${selector} to show ${text}`, look, DEADLINE_MS, 50).catch((error) => {
      throw new Error(`${error.message}; there is: ${JSON.stringify(there).slice(0, 2000)}`);
    });
  }

  /** What all that a selector finds shows. */
  texts(selector: string): Promise<string[]> {
    return this.find(`[...document.querySelectorAll(${JSON.stringify(selector)})].map((part) => part.textContent)`);
  }

  /** What an expression is in the page. */
  find<T>(expression: string): Promise<T> {
    return this.page.evaluate(expression) as Promise<T>;
  }

  /** Waits until an expression is true in the page. */
  async awaits(expression: string): Promise<void> {
    await until(expression, () => this.find<boolean>(expression), DEADLINE_MS, 50);
  }

  /** Types a value in the place of the one in a field. By keyboard: nothing that moves meanwhile is hit instead. */
  async fill(selector: string, text: string): Promise<void> {
    const field = await this.page.waitForSelector(selector, { timeout: DEADLINE_MS });
    await field?.evaluate((input) => (input as unknown as { select(): void }).select());
    await field?.press("Backspace");
    await field?.type(text);
  }

  /** Presses a button or a switch with the keyboard. */
  async press(selector: string): Promise<void> {
    await (await this.page.waitForSelector(selector, { timeout: DEADLINE_MS }))?.press("Space");
  }

  async click(selector: string): Promise<void> {
    await (await this.page.waitForSelector(selector, { timeout: DEADLINE_MS }))?.click();
  }

  /** What an accessibility checker says against what is shown: rules with what breaks them. */
  async barriers(): Promise<string[]> {
    await this.page.evaluate(axe.source);
    const found = await this.find<{ id: string; nodes: { html: string }[] }[]>(
      "axe.run().then((said) => said.violations)",
    );
    return found.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join("; ")}`.slice(0, 500));
  }

  /** Leaves a picture of what is shown. */
  async shoot(name: string): Promise<void> {
    await Deno.mkdir(SHOTS, { recursive: true });
    await this.page.screenshot({ path: new URL(`${name}.png`, SHOTS).pathname as `${string}.png` });
  }

  /** Shows it dark or light, as the system would ask for it. */
  async turn(scheme: "dark" | "light"): Promise<void> {
    await this.page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
  }

  /** Where the API of the fabric is that is shown. */
  get api(): string {
    return this.#fabric.info.api;
  }
}
