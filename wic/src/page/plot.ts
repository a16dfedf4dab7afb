/** Points that the plot keeps, one a second. */
const SPAN = 60;
const WIDTH = 300;
const HEIGHT = 80;

/** A plot of two data rates over the last minute, in an SVG of 300 by 80. */
export class Plot {
  readonly #lines: readonly [SVGPolylineElement, SVGPolylineElement];
  readonly #rates: [number[], number[]] = [[], []];

  constructor(
    readonly svg: SVGSVGElement,
    readonly scale: HTMLElement,
  ) {
    const line = (name: string) => {
      const made = document.createElementNS('http://www.w3.org/2000/svg', 'polyline');
      made.setAttribute('class', name);
      svg.append(made);
      return made;
    };
    this.#lines = [line('out'), line('in')];
  }

  clear(): void {
    this.#rates[0].length = this.#rates[1].length = 0;
    this.#draw();
  }

  /** Adds what was sent and received in the last second, in kbit/s. */
  add(out: number, into: number): void {
    this.#rates.forEach((rates, i) => {
      rates.push(i === 0 ? out : into);
      if (rates.length > SPAN) rates.shift();
    });
    this.#draw();
  }

  #draw(): void {
    const top = niceCeiling(Math.max(10, ...this.#rates[0], ...this.#rates[1]));
    this.#rates.forEach((rates, i) => {
      const first = SPAN - rates.length; // the newest at the right
      const points = rates.map((rate, k) => {
        const x = ((first + k) * WIDTH) / (SPAN - 1);
        const y = HEIGHT - 2 - (rate / top) * (HEIGHT - 6);
        return `${x.toFixed(1)},${y.toFixed(1)}`;
      });
      this.#lines[i]!.setAttribute('points', points.join(' '));
    });
    this.scale.textContent = `top: ${top < 1000 ? `${top} kbit/s` : `${top / 1000} Mbit/s`}`;
  }
}

/** The next 1, 2 or 5 times a power of ten, so that the scale does not jitter. */
function niceCeiling(n: number): number {
  const power = 10 ** Math.floor(Math.log10(n));
  return ([1, 2, 5, 10].find((m) => m * power >= n) ?? 10) * power;
}
