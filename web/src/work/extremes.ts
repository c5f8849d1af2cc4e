// Assign clicks, placed in any order, to the six extremes of a structure, named by the patient's directions.

import type { Extreme, Voxel } from "../api";
import type { Scan } from "../viewer/scan";

export const EXTREMES: Extreme[] = ["left", "right", "anterior", "posterior", "inferior", "superior"];

interface Direction {
  axis: 0 | 1 | 2;
  sign: 1 | -1;
}

/** The voxel axis and sign of an extreme. */
function directionOf(scan: Pick<Scan, "patient">, extreme: Extreme): Direction {
  const row = { left: 0, right: 0, anterior: 1, posterior: 1, inferior: 2, superior: 2 }[extreme];
  const towards = extreme === "right" || extreme === "anterior" || extreme === "superior" ? 1 : -1;
  const { axis, sign } = scan.patient[row]!;
  return { axis, sign: (sign * towards) as 1 | -1 };
}

/**
 * Return the index of the click of each extreme that is found.
 *
 * With six clicks or more, each extreme has its own click; the assignment minimises the sum of distances to the faces of
 * the box of all clicks, as on the server. With fewer, each click takes one extreme; the assignment maximises the sum of
 * distances from the middle of the clicks.
 */
export function findExtremes(scan: Pick<Scan, "patient" | "spacing_mm">, clicks: Voxel[]): Partial<Record<Extreme, number>> {
  if (!clicks.length) return {};
  const directions = EXTREMES.map((extreme) => directionOf(scan, extreme));
  const cost = clicks.length < 6 ? outwards(scan, clicks, directions) : toFaces(clicks, directions);
  const chosen = clicks.length < 6 ? assign(cost) : assign(transposed(cost));
  const found: Partial<Record<Extreme, number>> = {};
  chosen.forEach((column, row) => {
    const [click, extreme] = clicks.length < 6 ? [row, column] : [column, row];
    found[EXTREMES[extreme]!] = click;
  });
  return found;
}

/** [click][extreme]: negative distance in mm from the middle between the outermost clicks. */
function outwards(scan: Pick<Scan, "spacing_mm">, clicks: Voxel[], directions: Direction[]): number[][] {
  return clicks.map((click) =>
    directions.map(({ axis, sign }) => {
      const all = clicks.map((one) => one[axis]);
      const middle = (Math.min(...all) + Math.max(...all)) / 2;
      return -sign * (click[axis] - middle) * scan.spacing_mm[axis];
    }),
  );
}

/** [click][extreme]: distance to the face of the box, in units of its extent. */
function toFaces(clicks: Voxel[], directions: Direction[]): number[][] {
  return clicks.map((click) =>
    directions.map(({ axis, sign }) => {
      const all = clicks.map((one) => one[axis]);
      const [low, high] = [Math.min(...all), Math.max(...all)];
      return (sign > 0 ? high - click[axis] : click[axis] - low) / Math.max(high - low, 1);
    }),
  );
}

const transposed = (rows: number[][]): number[][] => rows[0]!.map((_, column) => rows.map((row) => row[column]!));

/** Assign a column to each row, each one once, with minimal sum (Hungarian method, O(rows² columns)). */
function assign(cost: number[][]): number[] {
  const [rows, columns] = [cost.length, cost[0]!.length];
  const u = new Array<number>(rows + 1).fill(0);
  const v = new Array<number>(columns + 1).fill(0);
  const rowOf = new Array<number>(columns + 1).fill(0);
  const before = new Array<number>(columns + 1).fill(0);
  for (let row = 1; row <= rows; row++) {
    rowOf[0] = row;
    let column = 0;
    const least = new Array<number>(columns + 1).fill(Infinity);
    const used = new Array<boolean>(columns + 1).fill(false);
    do {
      used[column] = true;
      const current = rowOf[column]!;
      let delta = Infinity;
      let next = 0;
      for (let j = 1; j <= columns; j++) {
        if (used[j]) continue;
        const reduced = cost[current - 1]![j - 1]! - u[current]! - v[j]!;
        if (reduced < least[j]!) {
          least[j] = reduced;
          before[j] = column;
        }
        if (least[j]! < delta) {
          delta = least[j]!;
          next = j;
        }
      }
      for (let j = 0; j <= columns; j++)
        if (used[j]) {
          u[rowOf[j]!]! += delta;
          v[j]! -= delta;
        } else least[j]! -= delta;
      column = next;
    } while (rowOf[column] !== 0);
    do {
      const previous = before[column]!;
      rowOf[column] = rowOf[previous]!;
      column = previous;
    } while (column);
  }
  const chosen = new Array<number>(rows).fill(0);
  for (let j = 1; j <= columns; j++) if (rowOf[j]) chosen[rowOf[j]! - 1] = j - 1;
  return chosen;
}
