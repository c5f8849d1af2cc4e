// Which click is which of the six ends, by the patient's names, while they are placed in any order.

import type { End, Voxel } from "../api";
import type { Scan } from "../viewer/scan";

export const ENDS: End[] = ["left", "right", "anterior", "posterior", "inferior", "superior"];

interface Direction {
  axis: 0 | 1 | 2;
  sign: 1 | -1;
}

/** In which direction of the voxels an end lies. */
function directionOf(scan: Pick<Scan, "patient">, end: End): Direction {
  const row = { left: 0, right: 0, anterior: 1, posterior: 1, inferior: 2, superior: 2 }[end];
  const towards = end === "right" || end === "anterior" || end === "superior" ? 1 : -1;
  const { axis, sign } = scan.patient[row]!;
  return { axis, sign: (sign * towards) as 1 | -1 };
}

/**
 * The index of the click of each end that is found.
 *
 * With six clicks or more each end has a click of its own, with the least sum of distances to the faces of the box of
 * all clicks, as the server decides it. With fewer, each click takes one end: those for which it lies furthest out from
 * the middle of all clicks.
 */
export function findEnds(scan: Pick<Scan, "patient" | "spacing_mm">, clicks: Voxel[]): Partial<Record<End, number>> {
  if (!clicks.length) return {};
  const directions = ENDS.map((end) => directionOf(scan, end));
  const cost = clicks.length < 6 ? outwards(scan, clicks, directions) : toFaces(clicks, directions);
  const chosen = clicks.length < 6 ? assign(cost) : assign(transposed(cost));
  const found: Partial<Record<End, number>> = {};
  chosen.forEach((column, row) => {
    const [click, end] = clicks.length < 6 ? [row, column] : [column, row];
    found[ENDS[end]!] = click;
  });
  return found;
}

/** [click][end]: mm towards the inside, from the middle between the outermost clicks. */
function outwards(scan: Pick<Scan, "spacing_mm">, clicks: Voxel[], directions: Direction[]): number[][] {
  return clicks.map((click) =>
    directions.map(({ axis, sign }) => {
      const all = clicks.map((one) => one[axis]);
      const middle = (Math.min(...all) + Math.max(...all)) / 2;
      return -sign * (click[axis] - middle) * scan.spacing_mm[axis];
    }),
  );
}

/** [click][end]: distance to the face of the box, in units of its extent. */
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

/** A column for each row, each one once, with the least sum (Hungarian method, O(rows² columns)). */
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
