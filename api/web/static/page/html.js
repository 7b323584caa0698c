// htm bound to Preact: templates in place of JSX, so nothing has to be built.

import htm from "htm";
import { h } from "preact";

export const html = htm.bind(h);
