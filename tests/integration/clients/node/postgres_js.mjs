// postgres.js: everything is prepared and in pipelines; its pool, cursors, COPY, transactions and listen.

import assert from "node:assert/strict";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import postgres from "postgres";
import { TURNS, WORKERS, crowd, main, said, until, zone } from "./crowd.mjs";

async function connected(dsn, work, options = {}) {
  const sql = postgres(dsn, { max: 1, ...options });
  try {
    await work(sql);
  } finally {
    await sql.end();
  }
}

const statements = (dsn) =>
  crowd((number) =>
    connected(dsn, async (sql) => {
      for (let turn = 0; turn < TURNS; turn++) {
        // The statements are sent without waiting for the answers to those before.
        const [, mine, own] = await Promise.all([
          sql`INSERT INTO rows_of_workers VALUES (${number}, ${turn}, ${said(number, turn)})`,
          sql.unsafe(`SELECT ${number} AS mine, $1::int AS turn`, [turn], { prepare: true }),
          sql`SELECT said FROM rows_of_workers WHERE worker = ${number} AND turn = ${turn}`,
        ]);
        assert.deepEqual([...mine], [{ mine: number, turn }]);
        assert.deepEqual([...own], [{ said: said(number, turn) }]);
        await assert.rejects(sql`SELECT ${number}::int / ${0}::int`, { code: "22012" });
      }
    }),
  );

// An error in the middle of several that are in flight fails its own and no other.
const errors = (dsn) =>
  crowd((number) =>
    connected(dsn, async (sql) => {
      for (let turn = 0; turn < 4; turn++) {
        const answers = await Promise.allSettled(
          Array.from({ length: 12 }, (_, n) => sql`SELECT ${number * 12}::int / ${n % 4}::int AS share`),
        );
        answers.forEach((answer, n) => {
          if (n % 4 === 0) assert.equal(answer.reason.code, "22012");
          else assert.equal(answer.value[0].share, Math.floor((number * 12) / (n % 4)));
        });
      }
    }),
  );

const pool = (dsn) =>
  connected(
    dsn,
    (sql) =>
      crowd(async (number) => {
        for (let turn = 0; turn < TURNS; turn++) {
          await sql.begin(async (transaction) => {
            await transaction`INSERT INTO rows_of_workers VALUES (${number}, ${turn}, ${said(number, turn)})`;
            await assert.rejects(
              transaction.savepoint((inner) => inner`INSERT INTO rows_of_workers VALUES (${number}, ${turn}, '')`),
              { code: "23505" },
            );
            const [{ most }] = await transaction`
              SELECT max(turn) AS most FROM rows_of_workers WHERE worker = ${number}`;
            assert.equal(most, turn);
          });
        }
      }),
    { max: 8 },
  );

const cursors = (dsn) =>
  crowd((number) =>
    connected(dsn, async (sql) => {
      for (let turn = 0; turn < 3; turn++) {
        const found = [];
        await sql`SELECT ${number * 1000}::int + n AS n FROM generate_series(1, 120) n`.cursor(50, (rows) => {
          found.push(...rows.map((row) => row.n));
        });
        assert.deepEqual(found, Array.from({ length: 120 }, (_, n) => number * 1000 + n + 1));
      }
    }),
  );

const copy = (dsn) =>
  crowd((number) =>
    connected(dsn, async (sql) => {
      const lines = Array.from({ length: 500 }, (_, turn) => `${number}\t${turn}\t${said(number, turn)}\n`);
      await pipeline(Readable.from(lines), await sql`COPY rows_of_workers FROM STDIN`.writable());
      const own = `SELECT * FROM rows_of_workers WHERE worker = ${number} ORDER BY turn`;
      const parts = [];
      for await (const part of await sql.unsafe(`COPY (${own}) TO STDOUT`).readable()) parts.push(part);
      assert.equal(Buffer.concat(parts).toString(), lines.join(""));
    }),
  );

const settings = (dsn) =>
  crowd((number) =>
    connected(
      dsn,
      async (sql) => {
        await sql.unsafe(`SET TimeZone = '${zone(number)}'`);
        for (let turn = 0; turn < 5; turn++) {
          const [{ zone: found, name }] = await sql`
            SELECT current_setting('TimeZone') AS zone, current_setting('application_name') AS name`;
          assert.deepEqual([found, name], [zone(number), `worker-${number}`]);
        }
      },
      { connection: { application_name: `worker-${number}` } },
    ),
  );

const listen = (dsn) =>
  connected(
    dsn,
    async (sql) => {
      const heard = [];
      await sql.listen("news_for_postgres_js", (payload) => heard.push(payload));
      await crowd((number) => sql.notify("news_for_postgres_js", said(number, 0)));
      await until(() => heard.length >= WORKERS, "20 notifications");
      const wanted = Array.from({ length: WORKERS }, (_, number) => said(number, 0));
      assert.deepEqual(heard.sort(), wanted.sort());
    },
    { max: 8 },
  );

await main({ statements, errors, pool, cursors, copy, settings, listen });
