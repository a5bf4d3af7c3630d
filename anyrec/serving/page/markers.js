// The colours and shapes of categories in the map. Each category has both, so that no two differ by colour alone.

// The colours of Okabe and Ito (2008), which people with any colour vision tell apart, darker for light pages and
// lighter for dark ones: each has a contrast of at least 3 to the ground of the map.
const LIGHT = ["#0072b2", "#b8501a", "#00805f", "#a8518a", "#7a6a00", "#23272a"];
const DARK = ["#4aa8e0", "#e8925a", "#3cc79c", "#dd9cc4", "#d8c84a", "#f4f4f4"];
const OTHER = { light: "#727a82", dark: "#8f979f" };
const SHAPES = ["circle", "square", "triangle", "diamond", "cross", "star"];

/** Return the marker of a category by its place among the categories; -1 is the marker of all others. */
export function markerOf(kind, dark) {
  if (kind < 0) return { colour: dark ? OTHER.dark : OTHER.light, shape: "circle" };
  const colours = dark ? DARK : LIGHT;
  return { colour: colours[kind % colours.length], shape: SHAPES[(kind + Math.floor(kind / colours.length)) % SHAPES.length] };
}

/** Add the outline of a shape around a point. */
export function outline(pen, shape, x, y, radius) {
  pen.beginPath();
  if (shape === "circle") pen.arc(x, y, radius, 0, 2 * Math.PI);
  else if (shape === "square") pen.rect(x - 0.88 * radius, y - 0.88 * radius, 1.76 * radius, 1.76 * radius);
  else corners(shape).forEach(([right, down], n) => pen[n ? "lineTo" : "moveTo"](x + right * radius, y + down * radius));
  pen.closePath();
}

function corners(shape) {
  if (shape === "triangle") return [[0, -1.2], [1.1, 0.8], [-1.1, 0.8]];
  if (shape === "diamond") return [[0, -1.25], [1.05, 0], [0, 1.25], [-1.05, 0]];
  if (shape === "cross") {
    return [[-0.4, -1.1], [0.4, -1.1], [0.4, -0.4], [1.1, -0.4], [1.1, 0.4], [0.4, 0.4], [0.4, 1.1], [-0.4, 1.1], [-0.4, 0.4], [-1.1, 0.4], [-1.1, -0.4], [-0.4, -0.4]];
  }
  return Array.from({ length: 10 }, (_, n) => {
    const length = n % 2 ? 0.55 : 1.3, angle = (n * Math.PI) / 5 - Math.PI / 2;
    return [length * Math.cos(angle), length * Math.sin(angle)];
  });
}

/** Draw a marker into a small canvas, for the legend. */
export function drawMarker(canvas, marker) {
  const pen = canvas.getContext("2d");
  pen.clearRect(0, 0, canvas.width, canvas.height);
  outline(pen, marker.shape, canvas.width / 2, canvas.height / 2, canvas.width / 2.9);
  pen.fillStyle = marker.colour;
  pen.fill();
}
