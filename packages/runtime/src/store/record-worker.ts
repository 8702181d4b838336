import { parentPort, workerData } from 'node:worker_threads';
import { outcomeOf } from './failures.ts';
import { writeRecordFile, type Part } from './record-file.ts';

/** What the thread is started with; it answers with an `Outcome` and ends. */
export interface RecordFileTask {
  readonly directory: string;
  readonly part: Part;
}

const { directory, part } = workerData as RecordFileTask;
parentPort?.postMessage(outcomeOf(() => writeRecordFile(directory, part)));
