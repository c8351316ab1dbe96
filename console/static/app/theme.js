// Light or dark: as the system has it, or as the person chose on this device.
const NAME = "deltaloom-theme";
export const THEMES = [
  ["", "as the system"],
  ["light", "light"],
  ["dark", "dark"],
];

const stored = (name) => {
  try {
    return localStorage.getItem(name) ?? "";
  } catch {
    return "";
  }
};

export const theme = () => stored(NAME);

/** Choose a theme, and keep the choice. */
export function chooseTheme(value) {
  keep(NAME, value);
  showTheme();
}

export function showTheme() {
  document.documentElement.dataset.theme = theme() || "system";
  document.dispatchEvent(new Event("themechange"));
}

/** Keep a preference of this device, if the browser allows it. */
export function keep(name, value) {
  try {
    if (value) localStorage.setItem(name, value);
    else localStorage.removeItem(name);
  } catch {
    // A browser without storage forgets it with the page.
  }
}

export const preference = stored;
