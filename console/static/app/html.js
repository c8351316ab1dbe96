// Preact and htm, bound to each other; every view imports them from here.
import { Component, createContext, h, render } from "../vendor/preact.js";
import htm from "../vendor/htm.js";

export { useContext, useEffect, useLayoutEffect, useMemo, useRef, useState } from "../vendor/hooks.js";
export { Component, createContext, render };

export const html = htm.bind(h);

/** Return the component, which is drawn again only if one of its props is another object or value. */
export function unlessSame(draw) {
  return class extends Component {
    shouldComponentUpdate(next) {
      const names = new Set([...Object.keys(next), ...Object.keys(this.props)]);
      return [...names].some((name) => next[name] !== this.props[name]);
    }

    render(props) {
      return draw(props);
    }
  };
}
