// What a browser does by itself: the colours of figures, names for screen readers, and handles under the arrow keys.
"use strict";
window.explorer = {
  begin() {
    const dark = matchMedia("(prefers-color-scheme: dark)");
    this.paint(dark.matches);
    dark.addEventListener("change", (event) => this.paint(event.matches));
    for (const place of document.querySelectorAll("[data-handle]")) new Handle(place);
    document.body.dataset.ready = String(Math.round(performance.now()));
  },

  models() {
    return [...Bokeh.documents[0]._all_models.values()];
  },

  // Canvases know no style sheets; the server need not know of colours.
  paint(dark) {
    const ink = dark ? "#e7eaee" : "#1d2126", faint = dark ? "#4a525d" : "#d4d9e0", panel = dark ? "#1c2025" : "#f7f8fa";
    const set = (model, values) => model.setv(values, {sync: false});
    for (const model of this.models()) {
      if ("axis_label_text_color" in model) {
        const lines = model.axis_line_color === null ? {} : {axis_line_color: ink, major_tick_line_color: ink};
        set(model, {axis_label_text_color: ink, major_label_text_color: ink, minor_tick_line_color: null, ...lines});
      } else if ("grid_line_color" in model) {
        set(model, {grid_line_color: faint});
      } else if ("border_fill_color" in model) {
        // Not transparent: what was drawn before a figure had its size would stay in its borders.
        set(model, {border_fill_color: panel});
      } else if ("label_text_color" in model) {
        set(model, {label_text_color: ink, background_fill_color: panel, background_fill_alpha: 0.85, border_line_color: null});
      } else if (model.tags.includes("ink")) {
        for (const name of ["line_color", "fill_color", "text_color"]) {
          if (name in model) set(model, {[name]: {value: ink}});
        }
      }
      if (model.title && typeof model.title === "string") this.name(model);
    }
  },

  // Bokeh shows the titles of widgets beside their inputs, without naming these.
  name(model) {
    const root = Bokeh.index.find_one(model)?.shadow_el;
    for (const input of root?.querySelectorAll("input, select, [role=slider]") ?? []) {
      input.setAttribute("aria-label", model.title);
    }
    // A spinner's own buttons do what the arrow keys do in its input.
    for (const button of root?.querySelectorAll("button") ?? []) {
      button.setAttribute("aria-hidden", "true");
      button.tabIndex = -1;
    }
  },
};

// A point that follows pointer and arrow keys over a figure; with a pen, it draws lines while it is down.
// Bokeh's own gestures take a pointer that rests before it moves for a long press, and lose the drag.
class Handle {
  constructor(place) {
    const named = (name) => name && Bokeh.documents[0].get_model_by_name(name);
    this.point = named(place.dataset.handle);
    this.lines = named(place.dataset.pen);
    this.figure = Bokeh.index.find_one(named(place.dataset.panel));
    const canvas = this.figure.el;
    canvas.style.touchAction = "none";
    canvas.addEventListener("pointerdown", (event) => this.begin(event));
    canvas.addEventListener("pointermove", (event) => this.follow(event));
    for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => this.end());
    place.addEventListener("keydown", (event) => this.press(event));
  }

  begin(event) {
    this.figure.el.setPointerCapture(event.pointerId);
    this.held = true;
    this.take(this.at(event), true);
  }

  follow(event) {
    if (this.held) this.take(this.at(event), false);
  }

  end() {
    this.held = false;
  }

  take(to, begins) {
    if (this.lines) this.draw(to, begins);
    else this.soon(() => { this.point.data = {...this.point.data, x: [to[0]], y: [to[1]]}; });
  }

  // Where the pointer is, in the units of the axes and within them.
  at(event) {
    const {left, top} = this.figure.el.getBoundingClientRect(), {x_scale, y_scale, x_range, y_range} = this.figure.frame;
    const within = (value, {start, end}) => Math.min(Math.max(value, start), end);
    const [x, y] = [x_scale.invert(event.clientX - left), y_scale.invert(event.clientY - top)];
    return [within(x, x_range), within(y, y_range)];
  }

  // Do the last of several things, once a frame at most, whatever the pointer sends.
  soon(act) {
    if (this.next === undefined) {
      requestAnimationFrame(() => {
        const last = this.next;
        this.next = undefined;
        last();
      });
    }
    this.next = act;
  }

  // Add a point to the last line, or begin one after those that are there: the page may have cleared them.
  draw([x, y], begins) {
    if (begins) {
      const {xs, ys} = this.lines.data;
      this.drawn = [xs, ys].map((lines) => [...Array.from(lines, (line) => [...line]), []]);
    }
    const [xs, ys] = this.drawn;
    xs.at(-1).push(x);
    ys.at(-1).push(y);
    this.soon(() => { this.lines.data = {xs: xs.map((line) => [...line]), ys: ys.map((line) => [...line])}; });
  }

  press(event) {
    const {x: [x], y: [y], down: [down] = []} = this.point.data, by = event.shiftKey ? 0.5 : 0.1;
    const ways = {ArrowLeft: [-by, 0], ArrowRight: [by, 0], ArrowUp: [0, by], ArrowDown: [0, -by]};
    const way = event.key === " " && this.lines ? [0, 0] : ways[event.key];
    if (way === undefined) return;
    event.preventDefault();
    const to = [x + way[0], y + way[1]], sets = event.key === " ";
    if (this.lines && (sets ? down !== 1 : down === 1)) this.draw(to, sets);
    this.point.data = {...this.point.data, x: [to[0]], y: [to[1]], ...(sets && {down: [down === 1 ? 0.2 : 1]})};
  }
}
