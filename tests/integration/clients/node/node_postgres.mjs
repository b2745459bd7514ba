// node-postgres (pg): its pool, named statements, cursors, COPY and notifications.

import assert from "node:assert/strict";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import pg from "pg";
import { from as copyFrom, to as copyTo } from "pg-copy-streams";
import Cursor from "pg-cursor";
import { TURNS, WORKERS, crowd, main, said, until, zone } from "./crowd.mjs";

const INSERT = "INSERT INTO rows_of_workers VALUES ($1, $2, $3)";

async function connected(dsn, work) {
  const client = new pg.Client({ connectionString: dsn });
  await client.connect();
  try {
    await work(client);
  } finally {
    await client.end();
  }
}

// Each worker calls its own statement by the same name as every other.
const statements = (dsn) =>
  crowd((number) =>
    connected(dsn, async (client) => {
      for (let turn = 0; turn < TURNS; turn++) {
        await client.query({ name: "insertion", text: INSERT, values: [number, turn, said(number, turn)] });
        const text = `SELECT ${number} AS mine, $1::int AS turn`;
        const found = await client.query({ name: "mine", text, values: [turn] });
        assert.deepEqual(found.rows, [{ mine: number, turn }]);
        assert.deepEqual(found.fields.map((field) => field.name), ["mine", "turn"]);
        const failing = { name: "failing", text: `SELECT ${number} / $1::int`, values: [0] };
        await assert.rejects(client.query(failing), { code: "22012" });
        const unnamed = await client.query("SELECT $1::text AS text", [said(number, turn)]);
        assert.equal(unnamed.rows[0].text, said(number, turn));
      }
      // A name belongs to one text.
      await assert.rejects(client.query({ name: "mine", text: "SELECT 'another text'" }));
    }),
  );

async function pool(dsn) {
  const pool = new pg.Pool({ connectionString: dsn, max: 8 });
  await crowd(async (number) => {
    for (let turn = 0; turn < TURNS; turn++) {
      const client = await pool.connect();
      try {
        await client.query("BEGIN");
        await client.query(INSERT, [number, turn, said(number, turn)]);
        await assert.rejects(async () => {
          await client.query("SAVEPOINT before_it");
          await client.query(INSERT, [number, turn, ""]);
        }, { code: "23505" });
        await client.query("ROLLBACK TO SAVEPOINT before_it");
        const own = "SELECT max(turn) AS most FROM rows_of_workers WHERE worker = $1";
        const found = await client.query({ name: "own", text: own, values: [number] });
        assert.equal(found.rows[0].most, turn);
        await client.query("COMMIT");
      } finally {
        client.release();
      }
    }
    const texts = await Promise.all(
      [1, 2, 3].map((n) => pool.query("SELECT $1::int * $2::int AS product", [number, n])),
    );
    assert.deepEqual(texts.map((answer) => answer.rows[0].product), [number, number * 2, number * 3]);
  });
  await pool.end();
}

const cursors = (dsn) =>
  crowd((number) =>
    connected(dsn, async (client) => {
      for (let turn = 0; turn < 3; turn++) {
        await client.query("BEGIN");
        const series = "SELECT $1::int + n AS n FROM generate_series(1, 120) n";
        const cursor = client.query(new Cursor(series, [number * 1000]));
        const found = [];
        for (let rows; (rows = await cursor.read(50)).length; ) found.push(...rows.map((row) => row.n));
        assert.deepEqual(found, Array.from({ length: 120 }, (_, n) => number * 1000 + n + 1));
        await cursor.close();
        await client.query("COMMIT");
      }
      // Outside of a transaction block a cursor that is not read to its end is open until it is closed.
      const begun = client.query(new Cursor("SELECT generate_series(1, 1000) AS n"));
      assert.deepEqual(await begun.read(2), [{ n: 1 }, { n: 2 }]);
      await begun.close();
      assert.deepEqual((await client.query(`SELECT ${number} AS n`)).rows, [{ n: number }]);
    }),
  );

const copy = (dsn) =>
  crowd((number) =>
    connected(dsn, async (client) => {
      const lines = Array.from({ length: 500 }, (_, turn) => `${number}\t${turn}\t${said(number, turn)}\n`);
      await pipeline(Readable.from(lines), client.query(copyFrom("COPY rows_of_workers FROM STDIN")));
      const own = `SELECT * FROM rows_of_workers WHERE worker = ${number} ORDER BY turn`;
      const parts = [];
      for await (const part of client.query(copyTo(`COPY (${own}) TO STDOUT`))) parts.push(part);
      assert.equal(Buffer.concat(parts).toString(), lines.join(""));
    }),
  );

const settings = (dsn) =>
  crowd((number) =>
    connected(dsn, async (client) => {
      await client.query(`SET TimeZone = '${zone(number)}'`);
      for (let turn = 0; turn < 5; turn++) {
        const shown = await client.query({ name: "zone", text: "SELECT current_setting('TimeZone') AS zone" });
        assert.equal(shown.rows[0].zone, zone(number));
      }
    }),
  );

const listen = (dsn) =>
  connected(dsn, async (client) => {
    const heard = [];
    client.on("notification", (message) => heard.push(message.payload));
    await client.query("LISTEN news_for_node");
    await crowd((number) =>
      connected(dsn, (other) => other.query("SELECT pg_notify('news_for_node', $1)", [said(number, 0)])),
    );
    await until(() => heard.length >= WORKERS, "20 notifications");
    const wanted = Array.from({ length: WORKERS }, (_, number) => said(number, 0));
    assert.deepEqual(heard.sort(), wanted.sort());
  });

await main({ statements, pool, cursors, copy, settings, listen });
