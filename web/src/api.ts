// Client of the server's documented routes; the only module that talks to the server.

export type Voxel = [number, number, number];
export type StudyState = "untouched" | "clicked" | "proposed" | "final" | "skipped" | "unreadable";
export type LabelState = "none" | "clicked" | "absent" | "final";
export type Extreme = "left" | "right" | "anterior" | "posterior" | "inferior" | "superior";

export interface Me {
  name: string | null;
  role: string;
  asks_login: boolean;
  may: { store: boolean; train: boolean; review: boolean };
}

export interface Skip {
  reason: string;
  annotator: string | null;
  created: string;
}

export interface Project {
  title: string;
  labels: string[];
  review_only: boolean;
  readers: number;
  model: { version: number; published: string } | null;
  strategies: Record<string, string>;
  default_strategy: string;
  models: { clicks: string; automatic: string | null };
  counts: Record<"total" | "untouched" | "clicked" | "proposed" | "final" | "skipped" | "unreadable", number>;
}

export interface StudyRow {
  id: string;
  name: string;
  detail: string;
  state: StudyState;
  labels: Record<string, LabelState>;
  annotator: string | null;
  working: string | null;
  skip: Skip | null;
  problem: string | null;
}

export interface Geometry {
  shape: Voxel;
  spacing_mm: [number, number, number];
  /** 4 x 4, voxel indices to RAS mm. */
  affine: number[][];
}

interface StoredLabel {
  state: LabelState;
  annotator: string | null;
  created: string | null;
  clicks: { foreground_voxel: Voxel[]; background_voxel: Voxel[] } | null;
  extremes: Record<Extreme, Voxel> | null;
}

export interface Study {
  id: string;
  name: string;
  state: StudyState;
  geometry: Geometry;
  /** The size in bytes is known after the volume was made. */
  volume: { url: string; bytes: number | null };
  labels: Record<string, StoredLabel>;
  final: {
    annotator: string | null;
    created: string;
    labels: string[];
    origin: Record<string, "accepted" | "corrected" | "drawn">;
    url: string;
  } | null;
  /** Mask that the network made in advance (pre-annotation). */
  proposal: { model_version: number; model_sha256: string | null; labels: string[]; url: string } | null;
  skip: Skip | null;
}

export interface Training {
  running: boolean;
  started: string | null;
  progress: number;
  epoch: number;
  epochs: number;
  loss: [number, number][];
  validation: [number, number][];
  sentence: string | null;
  remaining_s: number | null;
  error: string | null;
  may_train: boolean;
}

export interface ModelVersion {
  version: number;
  created: string;
  dice: number | null;
  scans: number | null;
  sentence: string | null;
  is_published: boolean;
}

export interface Models {
  published: number | null;
  versions: ModelVersion[];
}

/** Mask file of the server, and its parameters. */
export interface Answer {
  mask: ArrayBuffer;
  params: Record<string, unknown>;
}

/** Refusal by the server; the message is the server's sentence. */
export class Refusal extends Error {
  constructor(
    readonly status: number,
    sentence: string,
  ) {
    super(sentence);
  }
}

/** The server did not answer. */
export class Away extends Error {}

export class Api {
  /** Called with true for each answer, with false for each failure to reach the server. */
  onReach: (reached: boolean) => void = () => {};

  /** Called for each answer that asks for a login. */
  onExpired: () => void = () => {};

  me(): Promise<Me> {
    return this.json("GET", "/me");
  }

  /** `client_id`: name of the user without a login; own leases are not shown as another's. */
  studies(client_id = ""): Promise<{ project: Project; studies: StudyRow[] }> {
    return this.json("GET", client_id ? `/studies?client_id=${encodeURIComponent(client_id)}` : "/studies");
  }

  study(id: string): Promise<Study> {
    return this.json("GET", `/studies/${encodeURIComponent(id)}`);
  }

  /** PNG; refused with 404 while the study of an archive was not opened yet. */
  async thumbnail(id: string): Promise<Blob> {
    const answer = await this.send("GET", `/studies/${encodeURIComponent(id)}/thumbnail`, {});
    return answer.blob();
  }

  /** Fetch an address of this server; `onProgress` gets the bytes so far and in all. */
  async bytes(
    url: string,
    onProgress: (loaded: number, all: number) => void,
    signal?: AbortSignal,
  ): Promise<ReadableStream<Uint8Array>> {
    const answer = await this.send("GET", url, { signal });
    const all = Number(answer.headers.get("content-length") ?? 0);
    let loaded = 0;
    return answer.body!.pipeThrough(
      new TransformStream<Uint8Array, Uint8Array>({
        transform(chunk, out) {
          loaded += chunk.length;
          onProgress(loaded, all);
          out.enqueue(chunk);
        },
      }),
    );
  }

  /** Return the mask of a model for an image, as .nii.gz uint8 with the app's values. */
  async infer(model: string, image: string, params: object, signal?: AbortSignal): Promise<Answer> {
    const body = new FormData();
    body.set("params", JSON.stringify({ ...params, result_extension: ".nii.gz", result_dtype: "uint8" }));
    const query = `image=${encodeURIComponent(image)}&output=all`;
    const answer = await this.send("POST", `/infer/${encodeURIComponent(model)}?${query}`, { body, signal });
    return readAnswer(await answer.arrayBuffer(), answer.headers.get("content-type") ?? "");
  }

  /** Store clicks, or labels that are not in the image, without computing a mask. */
  async tell(model: string, image: string, params: object): Promise<void> {
    const body = new FormData();
    body.set("params", JSON.stringify(params));
    await this.send("POST", `/infer/${encodeURIComponent(model)}?image=${encodeURIComponent(image)}&output=json`, {
      body,
    });
  }

  accept(image: string, labels: string[], client_id: string): Promise<{ warning?: string }> {
    return this.json("POST", `/annotations/${encodeURIComponent(image)}/accept`, { labels, client_id });
  }

  takeBack(image: string, client_id: string): Promise<{ warning?: string }> {
    const query = `client_id=${encodeURIComponent(client_id)}`;
    return this.json("DELETE", `/annotations/${encodeURIComponent(image)}/accept?${query}`);
  }

  /** Store a drawn mask (.nii.gz with the app's values) as final for these labels. */
  async submit(image: string, mask: Blob, params: object): Promise<{ warning?: string }> {
    const body = new FormData();
    body.set("label", mask, "mask.nii.gz");
    body.set("params", JSON.stringify(params));
    const query = `image=${encodeURIComponent(image)}&tag=final`;
    const answer = await this.send("PUT", `/datastore/label?${query}`, { body });
    return answer.json();
  }

  skip(image: string, reason: string, client_id: string): Promise<Skip> {
    return this.json("POST", `/studies/${encodeURIComponent(image)}/skip`, { reason, client_id });
  }

  unskip(image: string, client_id: string): Promise<unknown> {
    const query = `client_id=${encodeURIComponent(client_id)}`;
    return this.json("DELETE", `/studies/${encodeURIComponent(image)}/skip?${query}`);
  }

  /** Reserve this study for half an hour. */
  working(image: string, client_id: string): Promise<unknown> {
    return this.json("POST", `/studies/${encodeURIComponent(image)}/working`, { client_id });
  }

  notWorking(image: string, client_id: string): Promise<unknown> {
    const query = `client_id=${encodeURIComponent(client_id)}`;
    return this.json("DELETE", `/studies/${encodeURIComponent(image)}/working?${query}`);
  }

  next(strategy: string, client_id: string): Promise<{ id?: string }> {
    return this.json("POST", `/activelearning/${encodeURIComponent(strategy)}`, { client_id });
  }

  training(): Promise<Training> {
    return this.json("GET", "/training");
  }

  startTraining(model: string): Promise<unknown> {
    return this.json("POST", `/train/${encodeURIComponent(model)}`, {});
  }

  stopTraining(): Promise<unknown> {
    return this.json("DELETE", "/train/");
  }

  models(): Promise<Models> {
    return this.json("GET", "/models");
  }

  publish(version: number): Promise<Models> {
    return this.json("POST", `/models/${version}/publish`, {});
  }

  /** Server-sent events: hello, training, model, studies. */
  events(): EventSource {
    return new EventSource("/events");
  }

  private async json<T>(method: string, url: string, content?: object): Promise<T> {
    const headers: Record<string, string> = content ? { "content-type": "application/json" } : {};
    const answer = await this.send(method, url, { body: content && JSON.stringify(content), headers });
    return answer.json();
  }

  private async send(method: string, url: string, options: RequestInit): Promise<Response> {
    let answer: Response;
    try {
      answer = await fetch(url, { method, credentials: "same-origin", ...options });
    } catch (error) {
      if (error instanceof DOMException && error.name === "AbortError") throw error;
      this.onReach(false);
      throw new Away(String(error));
    }
    // A reverse proxy answers with its own page while the server is down; the server's refusals are JSON.
    const isJson = answer.headers.get("content-type")?.startsWith("application/json") ?? false;
    this.onReach(![502, 503, 504].includes(answer.status) || isJson);
    if (answer.status === 401) this.onExpired();
    if (!answer.ok) throw new Refusal(answer.status, await sentence(answer));
    return answer;
  }
}

async function sentence(answer: Response): Promise<string> {
  const text = await answer.text();
  try {
    const { detail } = JSON.parse(text);
    if (typeof detail === "string") return detail;
    if (Array.isArray(detail) && detail[0]?.msg) return detail.map((one) => one.msg).join("; ");
  } catch {
    // not JSON: the answer of a proxy
  }
  return text && text.length < 300 && !text.startsWith("<") ? text : `${answer.status} ${answer.statusText}`;
}

/** Parts of a multipart answer: the form field "params" (JSON) and a file. */
async function readAnswer(body: ArrayBuffer, contentType: string): Promise<Answer> {
  const form = await new Response(body, { headers: { "content-type": contentType } }).formData();
  const params = form.get("params");
  const file = [...form.values()].find((value): value is File => value instanceof File);
  if (!file) throw new Refusal(200, "The answer of the server holds no mask.");
  return { mask: await file.arrayBuffer(), params: typeof params === "string" ? JSON.parse(params) : {} };
}
