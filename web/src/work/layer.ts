// Layers of the viewer made from the session: marks, box, masks, brush.

import { text } from "../text";
import type { Layer, Mark } from "../viewer/viewer";
import { EXTREMES, findExtremes } from "./extremes";
import type { WorkPointer } from "./pointer";
import type { Session } from "./session";
import { boxOf } from "./voxels";

export function layerOf(session: Session, pointer: WorkPointer | null): Layer {
  const { tool, brush, activeLabel, work } = session.app.store.state;
  const active = work[activeLabel];
  const foreground = (active?.foreground ?? []).map((voxel, index) =>
    pointer?.dragged?.kind === "in" && pointer.dragged.index === index ? pointer.dragged.voxel : voxel);
  const box = boxOf(foreground);
  return {
    map: session.map.values,
    styles: session.labels.map((label) => ({
      shown: true,
      dashed: work[label]?.source === "proposal",
      active: label === activeLabel,
    })),
    marks: [...session.labels].filter((label) => label === activeLabel).flatMap((label) => marksOf(session, label, pointer)),
    box: box && foreground.length > 1 ? { ...box, label: session.valueOf(activeLabel) } : null,
    brush: tool === "points" ? null : { radius_mm: brush.radius_mm, erases: tool === "eraser" },
  };
}

function marksOf(session: Session, label: string, pointer: WorkPointer | null): Mark[] {
  const work = session.work(label);
  const found = findExtremes(session.scan, work.foreground);
  const letterOf = (index: number): string => {
    const extreme = EXTREMES.find((one) => found[one] === index);
    return extreme ? text.extremeLetters[extreme] : "";
  };
  return (["in", "out"] as const).flatMap((kind) =>
    (kind === "in" ? work.foreground : work.background).map((voxel, index): Mark => {
      const dragged = pointer?.dragged?.kind === kind && pointer.dragged.index === index ? pointer.dragged.voxel : null;
      return {
        voxel: dragged ?? voxel,
        kind,
        label: session.valueOf(label),
        letter: kind === "in" ? letterOf(index) : "",
        hovered: session.hovered?.label === label && session.hovered.kind === kind && session.hovered.index === index,
        refused: work.refusal !== null,
      };
    }));
}

