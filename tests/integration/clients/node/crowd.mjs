// What the programs for node share: twenty workers, what they write, and how they say that all is well.

export const WORKERS = 20;
export const TURNS = 10;

// What a worker writes in that turn, and reads again.
export const said = (worker, turn) => `worker ${worker} in turn ${turn}: äöü € 🐘`;

// A time zone that no other worker has.
export const zone = (worker) => `Etc/GMT${worker < 14 ? "-" : "+"}${Math.abs(worker - 14)}`;

// work(number) for every worker at once; the first error of one of them ends the program.
export const crowd = (work) => Promise.all(Array.from({ length: WORKERS }, (_, number) => work(number)));

// Wait until check() is true.
export async function until(check, what) {
  const deadline = Date.now() + 20_000;
  while (!check()) {
    if (Date.now() > deadline) throw new Error(`this never came: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

// Runs the scenario that the command line names: node program.mjs DSN SCENARIO.
export async function main(scenarios) {
  const [dsn, name] = process.argv.slice(2);
  await scenarios[name](dsn);
  console.log("all is well");
}
