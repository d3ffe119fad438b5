/** What `ostraka demo` starts with: a small bookshop, made up for the purpose. One script, loaded in one session. */

export const SAMPLE_QUERIES: readonly string[] = [
  "select title, author, price_cents, in_stock from catalogue order by title limit 5;",
  "select * from monthly_sales;",
  "insert into sale (customer_id, sold_on) values (1, date('now'));",
];

export const SAMPLE_DATABASE = `
BEGIN;
CREATE TABLE author (
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL UNIQUE,
  born INTEGER
);
CREATE TABLE book (
  id INTEGER PRIMARY KEY,
  title TEXT NOT NULL,
  author_id INTEGER NOT NULL REFERENCES author(id),
  genre TEXT NOT NULL,
  price_cents INTEGER NOT NULL CHECK (price_cents > 0),
  in_stock INTEGER NOT NULL DEFAULT 0 CHECK (in_stock >= 0)
);
CREATE TABLE customer (
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL,
  email TEXT UNIQUE,
  town TEXT
);
CREATE TABLE sale (
  id INTEGER PRIMARY KEY,
  customer_id INTEGER NOT NULL REFERENCES customer(id),
  sold_on TEXT NOT NULL
);
CREATE TABLE sale_line (
  sale_id INTEGER NOT NULL REFERENCES sale(id) ON DELETE CASCADE,
  book_id INTEGER NOT NULL REFERENCES book(id),
  quantity INTEGER NOT NULL CHECK (quantity > 0),
  price_cents INTEGER NOT NULL,
  PRIMARY KEY (sale_id, book_id)
) WITHOUT ROWID;
INSERT INTO author VALUES
  (1,'Ida Marlowe',1951),(2,'Tomas Vrba',1968),(3,'Adaeze Okoro',1979),(4,'Jun Hayashi',1943),
  (5,'Lena Fischer',1985),(6,'Rui Carvalho',1960),(7,'Sofia Lindqvist',1972),(8,'Nikos Petrou',1938);
INSERT INTO book VALUES
  (1,'The Potter''s Vote',8,'history',1850,12),(2,'Ten Years Away',8,'history',2100,4),
  (3,'Salt and Slate',1,'novel',1290,20),(4,'A House on the Quay',1,'novel',1390,7),
  (5,'Night Trains East',2,'travel',1590,9),(6,'The Bridge at Dusk',2,'novel',1190,15),
  (7,'Harmattan',3,'novel',1450,18),(8,'Letters to a Lagoon',3,'poetry',990,6),
  (9,'The Quiet Garden',4,'essays',1650,3),(10,'Rain on Paper',4,'poetry',890,11),
  (11,'Bread for Six',5,'cooking',2490,8),(12,'Winter Kitchen',5,'cooking',2690,5),
  (13,'Atlantic Light',6,'photography',3900,2),(14,'Tides',6,'poetry',950,10),
  (15,'Birches',7,'novel',1350,14),(16,'The Cartographer''s Niece',7,'novel',1490,16);
INSERT INTO customer VALUES
  (1,'Mara Novak','mara@example.com','Brno'),(2,'Ben Adeyemi','ben@example.com','Leeds'),
  (3,'Clara Duarte','clara@example.com','Porto'),(4,'Otto Lang',NULL,'Graz'),
  (5,'Yuki Mori','yuki@example.com','Kobe'),(6,'Eleni Vasilaki','eleni@example.com','Patras');
INSERT INTO sale VALUES
  (1,1,'2025-01-14'),(2,2,'2025-01-20'),(3,3,'2025-02-03'),(4,1,'2025-02-17'),
  (5,5,'2025-02-25'),(6,6,'2025-03-08'),(7,4,'2025-03-19'),(8,2,'2025-03-30');
INSERT INTO sale_line VALUES
  (1,1,1,1850),(1,3,2,1290),(2,7,1,1450),(2,11,1,2490),(3,13,1,3900),(3,14,3,950),(4,16,1,1490),
  (5,9,1,1650),(5,10,2,890),(6,1,1,1850),(6,2,1,2100),(7,12,1,2690),(8,6,2,1190),(8,15,1,1350);
CREATE INDEX book_by_author ON book (author_id);
CREATE INDEX sale_by_customer ON sale (customer_id, sold_on);
CREATE VIEW catalogue AS
  SELECT book.id, title, author.name AS author, genre, price_cents, in_stock
  FROM book JOIN author ON author.id = book.author_id;
CREATE VIEW monthly_sales AS
  SELECT substr(sold_on, 1, 7) AS month, count(DISTINCT sale.id) AS sales, sum(quantity) AS books,
         sum(quantity * price_cents) AS cents
  FROM sale JOIN sale_line ON sale_line.sale_id = sale.id
  GROUP BY month ORDER BY month;
CREATE TRIGGER sale_line_takes_stock AFTER INSERT ON sale_line BEGIN
  UPDATE book SET in_stock = in_stock - new.quantity WHERE id = new.book_id;
END;
COMMIT;
`;
