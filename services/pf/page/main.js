/** The page begins: the token out of the address, who is asking, and the views. */
import { takeTokenFromAddress } from "./api.js";
import { App } from "./app.js";
import { applyTheme } from "./theme.js";
import { html, render } from "./vendor/preact.js";

takeTokenFromAddress();
applyTheme();
const root = document.getElementById("page");
root.replaceChildren();
render(html`<${App} />`, root);
