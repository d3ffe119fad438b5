/**
 * Random schemas and statements for comparing databases with plain SQLite: everything follows from a seed. Statements
 * are such that SQLite's answer does not depend on the order in which it happens to visit rows; those whose rows come
 * in no order are marked, to be compared as sets.
 */

/** A small, fast generator of random numbers (mulberry32). */
export function randomOf(seed) {
  let state = seed >>> 0;
  const next = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
  const int = (low, high) => low + Math.floor(next() * (high - low + 1));
  return {
    next,
    int,
    chance: (part) => next() < part,
    pick: (list) => list[int(0, list.length - 1)],
  };
}

const WORDS = [
  "ash",
  "birch",
  "cedar",
  "elm",
  "fir",
  "Hazel",
  "larch",
  "maple",
  "oak",
  "Pine",
  "rowan",
  "yew",
];

/** Tables of all kinds of keys, with what may hang on them. */
function makeSchema(random) {
  const tables = [
    { name: "item", key: ["id"], kind: "rowid", columns: ["id", "n", "s", "r"] },
    { name: "part", key: ["id"], kind: "rowid", columns: ["id", "item_id", "q"], parent: "item" },
    { name: "pair", key: ["a", "b"], kind: "key", columns: ["a", "b", "v"] },
    { name: "loose", key: ["rowid"], kind: "hidden", columns: ["x", "y"] },
    { name: "named", key: ["name"], kind: "text", columns: ["name", "n"] },
  ];
  const action = random.pick([
    "",
    " on delete cascade",
    " on delete set null",
    " on update cascade on delete cascade",
  ]);
  const statements = [
    `create table item (id integer primary key${random.chance(0.3) ? " autoincrement" : ""}, n integer${random.chance(0.3) ? " check (n < 100000)" : ""}, s text${random.chance(0.3) ? " collate nocase" : ""} default 'none', r real)`,
    `create table part (id integer primary key, item_id integer references item(id)${action}, q integer not null default 1)`,
    "create table pair (a integer not null, b text not null, v, primary key (a, b)) without rowid",
    "create table loose (x, y)",
    "create table named (name text primary key not null, n integer)",
  ];
  if (random.chance(0.6)) statements.push("create index item_n on item (n)");
  if (random.chance(0.4)) statements.push("create unique index item_s on item (s, n)");
  if (random.chance(0.4)) statements.push("create index part_item on part (item_id)");
  if (random.chance(0.3)) statements.push("create unique index loose_x on loose (x) where x > 500");
  if (random.chance(0.5)) {
    statements.push("create table log (id integer primary key, what text, key integer)");
    statements.push(
      "create trigger item_gone after delete on item begin insert into log (what, key) values ('gone', old.id); end",
    );
    if (random.chance(0.5))
      statements.push(
        "create trigger item_changed after update of n on item when new.n > 50 begin update item set r = new.n * 0.5 where id = new.id; end",
      );
    tables.push({ name: "log", key: ["id"], kind: "rowid", columns: ["id", "what", "key"] });
  }
  if (random.chance(0.5))
    statements.push(
      "create view item_parts as select item.id as id, n, s, count(part.id) as parts, total(q) as sum from item left join part on part.item_id = item.id group by item.id",
    );
  return { tables, statements, hasView: statements.at(-1).startsWith("create view") };
}

/** Full text over a table kept up by triggers, full text by itself, and an R-Tree. */
const VIRTUAL_TABLES = [
  "create table note (id integer primary key, body text)",
  "create virtual table found using fts5(body, content='note', content_rowid='id')",
  "create trigger note_in after insert on note begin insert into found(rowid, body) values (new.id, new.body); end",
  "create trigger note_out after delete on note begin insert into found(found, rowid, body) values ('delete', old.id, old.body); end",
  "create trigger note_new after update on note begin insert into found(found, rowid, body) values ('delete', old.id, old.body); insert into found(rowid, body) values (new.id, new.body); end",
  "create virtual table said using fts5(x, prefix='2')",
  "create virtual table area using rtree(id, low, high)",
];

export class Generator {
  #random;
  /** Of its own, so that the other statements of a seed are the same with virtual tables and without. */
  #aside;
  #schema;
  #hasVirtual;
  #inTransaction = false;
  #savepoints = 0;
  #added = 0;

  /** `virtual`: whether there may be virtual tables. */
  constructor(seed, virtual) {
    this.#random = randomOf(seed);
    this.#schema = makeSchema(this.#random);
    this.#aside = randomOf(seed ^ 0x5eed);
    this.#hasVirtual = virtual && this.#aside.chance(0.6);
    if (this.#hasVirtual) this.#schema.statements.push(...VIRTUAL_TABLES);
  }

  get schema() {
    return this.#schema.statements;
  }

  /** The next statement: its text, parameters, and whether its rows come in a fixed order. */
  next() {
    if (this.#hasVirtual && this.#aside.chance(0.15)) return this.#virtual();
    const random = this.#random;
    const roll = random.next();
    if (roll < 0.04) return this.#control();
    if (roll < 0.045 && !this.#inTransaction) return this.#change();
    if (roll < 0.4) return this.#insert();
    if (roll < 0.52) return this.#update();
    if (roll < 0.6) return this.#delete();
    return this.#select();
  }

  /** The session's transaction ended by itself. */
  ended() {
    this.#inTransaction = false;
    this.#savepoints = 0;
  }

  #virtual() {
    const random = this.#aside;
    const id = random.int(1, 60);
    const word = () => random.pick(WORDS).toLowerCase();
    const text = () => Array.from({ length: random.int(1, 5) }, word).join(" ");
    const any = (sql, args = []) => ({ sql, args, unordered: true });
    return random.pick([
      () => any("insert into note (body) values (?), (?)", [text(), text()]),
      () => any("insert or replace into note values (?, ?)", [id, text()]),
      () => any("insert into note (body) select s || ' ' || n from item where id > ? order by id", [id]),
      () => any("update note set body = body || ' ' || ? where id < ?", [word(), id]),
      () => any("delete from note where body like ?", [`%${word()}%`]),
      () => any("insert or replace into said(rowid, x) select id, s from item where n > ?", [id]),
      () => any("insert into said(x) values (?)", [text()]),
      () => any("update said set x = ? where rowid = ?", [text(), id]),
      () => any("delete from said where said match ?", [word()]),
      () => any("insert into said(said) values ('optimize')"),
      () =>
        any("insert or replace into area select id, n, n + 5 from item where n is not null and id < ?", [id]),
      () => any("update area set high = high + 1 where low > ?", [id]),
      () => any("delete from area where id = ?", [id]),
      () =>
        any("update item set n = n + 1 where id in (select rowid from found where found match ?)", [word()]),
      () => any("select rowid, body from found where found match ?", [word()]),
      () => any("select item.id, x from said join item on item.id = said.rowid where said match ?", [word()]),
      () => any("select rowid from said where said match ?", [`${word().slice(0, 2)}*`]),
      () => any("select * from area where low > ? and high < ?", [id - 30, id + 30]),
      () => any("select count(*), (select count(*) from said), (select count(*) from area) from found"),
    ])();
  }

  #control() {
    const random = this.#random;
    if (!this.#inTransaction) {
      this.#inTransaction = true;
      return { sql: random.pick(["begin", "begin", "begin immediate"]) };
    }
    if (random.chance(0.3)) return { sql: `savepoint s${++this.#savepoints}` };
    if (this.#savepoints > 0 && random.chance(0.5)) {
      const sql = random.chance(0.5) ? `rollback to s${this.#savepoints}` : `release s${this.#savepoints--}`;
      return { sql };
    }
    this.ended();
    return { sql: random.chance(0.75) ? "commit" : "rollback" };
  }

  #change() {
    const random = this.#random;
    const n = ++this.#added;
    return {
      sql: random.pick([
        `alter table item add column extra${n} integer default ${n}`,
        `create index more${n} on item (r, n)`,
        `create table late${n} (k integer primary key, v text)`,
        `create table if not exists copy${n} as select id, n from item where n > ${random.int(0, 60)} order by id`,
        "drop index if exists item_n",
        "analyze",
      ]),
    };
  }

  #value() {
    const random = this.#random;
    const roll = random.next();
    if (roll < 0.1) return null;
    if (roll < 0.5) return random.int(-20, 120);
    if (roll < 0.6) return random.int(0, 400) / 4;
    return random.pick(WORDS) + (random.chance(0.3) ? random.int(0, 9) : "");
  }

  #id() {
    return this.#random.int(1, 80);
  }

  #insert() {
    const random = this.#random;
    const verb = random.pick(["insert", "insert", "insert", "insert or replace", "insert or ignore"]);
    const returning = random.chance(0.15);
    switch (random.int(0, 7)) {
      case 0:
      case 1: {
        const ids = Array.from({ length: random.int(1, 4) }, () => this.#id());
        const rows = ids.map(
          (id) => `(${id}, ${random.int(0, 90)}, '${random.pick(WORDS)}', ${random.int(0, 40) / 4})`,
        );
        return this.#one(
          `${verb} into item (id, n, s, r) values ${rows.join(", ")}`,
          [],
          returning ? "id, n" : "",
        );
      }
      case 2:
        return this.#one(
          "insert into item (n, s) values (?, ?)",
          [random.int(0, 90), random.pick(WORDS)],
          returning ? "id, s" : "",
        );
      case 3:
        return this.#one(
          `${verb} into part (id, item_id, q) values (?, ?, ?)`,
          [random.int(1, 120), random.chance(0.1) ? null : this.#id(), random.int(1, 9)],
          "",
        );
      case 4:
        return this.#one(
          `${verb} into pair values (?, ?, ?)`,
          [random.int(0, 12), random.pick(WORDS), this.#value()],
          returning ? "a, b" : "",
        );
      case 5:
        return this.#one(
          `${verb} into loose values (?, ?), (?, ?)`,
          [random.int(0, 900), this.#value(), this.#value(), this.#value()],
          "",
        );
      case 6:
        return this.#one(
          random.chance(0.5)
            ? "insert into named values (?, ?) on conflict (name) do update set n = n + excluded.n"
            : "insert or ignore into named values (?, ?)",
          [random.pick(WORDS) + random.int(0, 30), random.int(0, 90)],
          "",
        );
      default:
        return this.#one(
          random.pick([
            "insert into part (item_id, q) select id, n from item where n between 10 and 30 order by id limit 3",
            "insert or ignore into pair select id, s, r from item where s is not null and n < 20 order by id",
            "insert into loose select n, s from item where id < 8 order by id",
          ]),
          [],
          "",
        );
    }
  }

  #one(sql, args, returning) {
    return { sql: returning === "" ? sql : `${sql} returning ${returning}`, args, unordered: true };
  }

  #update() {
    const random = this.#random;
    return {
      unordered: true,
      ...random.pick([
        () => ({ sql: "update item set n = n + 1 where id = ?", args: [this.#id()] }),
        () => ({
          sql: "update item set n = n + 1, s = upper(s) where id between ? and ?",
          args: [this.#id(), this.#id() + 10],
        }),
        () => ({ sql: "update item set r = r + 0.25 where n > ?", args: [random.int(0, 90)] }),
        () => ({ sql: "update item set id = id + 1000 where id = ?", args: [this.#id()] }),
        () => ({
          sql: "update or ignore item set s = ? where n = ?",
          args: [random.pick(WORDS), random.int(0, 20)],
        }),
        () => ({
          sql: "update part set q = (select n from item where item.id = item_id) where item_id in (select id from item where n > ?)",
          args: [random.int(0, 90)],
        }),
        () => ({ sql: "update part set item_id = ? where id = ?", args: [this.#id(), random.int(1, 120)] }),
        () => ({ sql: "update pair set v = v || 'x' where a = ?", args: [random.int(0, 12)] }),
        () => ({ sql: "update pair set a = a + 20 where a = ? and b > 'f'", args: [random.int(0, 12)] }),
        () => ({ sql: "update named set n = n * 2 where name like ?", args: [`${random.pick(WORDS)}%`] }),
        () => ({
          sql: "update item set n = p.q from part as p where p.item_id = item.id and p.id = ?",
          args: [random.int(1, 120)],
        }),
      ])(),
    };
  }

  #delete() {
    const random = this.#random;
    return {
      unordered: true,
      ...random.pick([
        () => ({ sql: "delete from item where id = ?", args: [this.#id()] }),
        () => ({ sql: "delete from item where n = ?", args: [random.int(0, 90)] }),
        () => ({ sql: "delete from part where item_id = ? returning id", args: [this.#id()] }),
        () => ({ sql: "delete from part where id > ?", args: [random.int(60, 140)] }),
        () => ({ sql: "delete from pair where a = ?", args: [random.int(0, 40)] }),
        () => ({ sql: "delete from pair where v is null", args: [] }),
        () => ({ sql: "delete from loose where x = ?", args: [random.int(0, 900)] }),
        () => ({ sql: "delete from named where n > ?", args: [random.int(50, 300)] }),
      ])(),
    };
  }

  #select() {
    const random = this.#random;
    const ordered = (sql, args = []) => ({ sql, args, unordered: false });
    const any = (sql, args = []) => ({ sql, args, unordered: true });
    const view = this.#schema.hasView;
    return random.pick([
      () => ordered("select * from item where id = ?", [this.#id()]),
      () =>
        ordered("select id, n, s from item where id between ? and ? order by id", [
          this.#id(),
          this.#id() + 20,
        ]),
      () => ordered("select count(*), sum(n), min(s), max(r), avg(n), total(r) from item"),
      () => ordered("select s, count(*), sum(n) from item group by s order by s, 2, 3"),
      () => any("select distinct n % 7 from item where s > ?", [random.pick(WORDS)]),
      () =>
        ordered("select id, n from item order by n desc, id limit ? offset ?", [
          random.int(1, 9),
          random.int(0, 5),
        ]),
      () =>
        any("select item.id, q from item join part on item.id = item_id where n > ?", [random.int(0, 90)]),
      () =>
        ordered(
          "select item.id, count(part.id) from item left join part on item.id = item_id group by item.id having count(part.id) >= ? order by 1",
          [random.int(0, 2)],
        ),
      () => ordered("select * from pair where a = ? order by b", [random.int(0, 12)]),
      () => any("select a, count(*) from pair group by a"),
      () => ordered("select count(*), count(x), count(distinct y) from loose"),
      () => any("select x, y from loose where x > ?", [random.int(0, 900)]),
      () => ordered("select * from named where name = ?", [random.pick(WORDS) + random.int(0, 30)]),
      () => any("select name from named where n in (select n from item)"),
      () =>
        any("select id from item where exists (select 1 from part where item_id = item.id and q > ?)", [
          random.int(1, 9),
        ]),
      () =>
        ordered("select id, n, row_number() over (order by n, id) from item where id < ? order by id", [
          this.#id(),
        ]),
      () =>
        ordered("select id from item union select item_id from part where item_id is not null order by 1"),
      () =>
        ordered(
          "with recursive c(i) as (select 1 union all select i + 1 from c where i < 5) select i, (select count(*) from item where n % 5 = i) from c order by i",
        ),
      () =>
        any("select s, n from item where s like ? or n = ?", [
          `${random.pick(WORDS)[0]}%`,
          random.int(0, 90),
        ]),
      () => ordered("select max(id), min(id) from item"),
      () =>
        ordered("select * from part where id in (?, ?, ?) order by id", [
          random.int(1, 120),
          random.int(1, 120),
          random.int(1, 120),
        ]),
      () =>
        view
          ? ordered("select * from item_parts where parts > ? order by id", [random.int(0, 2)])
          : ordered("select changes() >= 0"),
      () => ordered("select seq >= 0 from sqlite_sequence where name = 'item'"),
      () => ordered("select typeof(r), typeof(n), count(*) from item group by 1, 2 order by 1, 2"),
    ])();
  }
}
