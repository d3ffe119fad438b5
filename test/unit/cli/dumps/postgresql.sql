--
-- PostgreSQL database dump
--

\restrict Abc123

SET statement_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);

CREATE SCHEMA other;

ALTER SCHEMA other OWNER TO postgres;

CREATE EXTENSION IF NOT EXISTS pgcrypto WITH SCHEMA public;

CREATE TYPE public.mood AS ENUM (
    'sad',
    'it''s ok',
    'happy;'
);

CREATE DOMAIN public.posint AS integer
	CONSTRAINT posint_check CHECK ((VALUE > 0));

CREATE FUNCTION public.f1(a integer) RETURNS integer
    LANGUAGE plpgsql
    AS $_$ BEGIN -- a; comment ' $$
 RETURN a + 1; END; $_$;

CREATE FUNCTION public.f2() RETURNS integer
    LANGUAGE sql
    BEGIN ATOMIC
 SELECT CASE WHEN true THEN 1 ELSE 2 END;
END;

CREATE TABLE other.thing (
    id integer NOT NULL,
    key text,
    c integer
);

CREATE TABLE public.thing (
    id integer NOT NULL
);

CREATE TABLE public.customer (
    id integer NOT NULL,
    email character varying(120) NOT NULL,
    name text DEFAULT 'O''Brien; \ "x"'::text,
    m public.mood DEFAULT 'sad'::public.mood NOT NULL,
    vip boolean DEFAULT false NOT NULL,
    balance numeric(20,4) DEFAULT 0 NOT NULL,
    created timestamp with time zone DEFAULT now() NOT NULL,
    born date DEFAULT CURRENT_DATE,
    doc jsonb DEFAULT '{}'::jsonb,
    u uuid DEFAULT gen_random_uuid(),
    tags text[] DEFAULT '{}'::text[],
    pos public.posint,
    raw bytea,
    f double precision,
    ch character(5),
    comment text,
    CONSTRAINT ck_bal CHECK (((balance >= (0)::numeric) OR (vip AND ((email)::text <> 'x'::text)))),
    CONSTRAINT ck_born CHECK ((born > '1900-01-01'::date)),
    CONSTRAINT ck_regexp CHECK (((email)::text ~ '@'::text))
);

ALTER TABLE public.customer OWNER TO postgres;

COMMENT ON TABLE public.customer IS 'people; who buy';

COMMENT ON COLUMN public.customer.name IS 'it''s a name';

CREATE TABLE public."order" (
    id bigint NOT NULL,
    customer_id integer NOT NULL,
    parent bigint,
    qty integer NOT NULL,
    price numeric(10,2) NOT NULL,
    area integer GENERATED ALWAYS AS ((qty * 2)) STORED,
    "Weird Name" text,
    status character varying(10) DEFAULT 'new'::character varying,
    CONSTRAINT order_qty_check CHECK ((qty > 0)),
    CONSTRAINT order_status_check CHECK (((status)::text = ANY ((ARRAY['new'::character varying, 'done'::character varying])::text[])))
);

CREATE VIEW public.big_orders AS
 SELECT o.id,
    c.email,
    o.qty AS amount
   FROM (public."order" o
     JOIN public.customer c ON ((c.id = o.customer_id)))
  WHERE ((o.qty > 1) AND ((c.email)::text ~~ '%@X%'::text) IS FALSE)
  ORDER BY o.id;

CREATE VIEW public.by_year AS
 SELECT date_part('year'::text, customer.created) AS y
   FROM public.customer;

CREATE SEQUENCE public.customer_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;

ALTER SEQUENCE public.customer_id_seq OWNED BY public.customer.id;

ALTER TABLE public."order" ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.order_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE SEQUENCE public.free_seq
    START WITH 10;

CREATE TABLE public.part (
    id integer NOT NULL,
    y integer NOT NULL
)
PARTITION BY RANGE (y);

CREATE TABLE public.part_0 (
    y integer NOT NULL,
    id integer NOT NULL
);

ALTER TABLE ONLY public.part ATTACH PARTITION public.part_0 FOR VALUES FROM (0) TO (2000);

ALTER TABLE ONLY public.customer ALTER COLUMN id SET DEFAULT nextval('public.customer_id_seq'::regclass);

COPY other.thing (id, key, c) FROM stdin;
1	k	1
\.

COPY public.customer (id, email, name, m, vip, balance, created, born, doc, u, tags, pos, raw, f, ch, comment) FROM stdin;
1	a@x.org	Mara "q" \\ ' \n \t \b ü😀	it's ok	t	12345678901.5678	2024-02-29 10:34:56.789+02	1999-12-31	{"a": "x\\"y"}	123e4567-e89b-12d3-a456-426614174000	{a,"b,c"}	5	\\x00ff5c27	Infinity	ab   	c
2	b@x.org	\N	sad	f	0.0001	2024-03-01 00:00:00+00	\N	\N	\N	\N	\N	\N	1e+300	\N	more
3	c@x.org	\\N	happy;	f	12345678901234567.8	infinity	\N	null	\N	{}	1	\\x	NaN	\\.   	
\.

COPY public."order" (id, customer_id, parent, qty, price, "Weird Name", status) FROM stdin;
1	1	2	2	3.50	multi\nline	new
2	2	\N	1	5.00	\N	done
\.

INSERT INTO public.part_0 VALUES (1999, 1);
INSERT INTO public.thing VALUES (9);

SELECT pg_catalog.setval('public.customer_id_seq', 5, true);

SELECT pg_catalog.setval('public.order_id_seq', 8, false);

ALTER TABLE ONLY other.thing
    ADD CONSTRAINT thing_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.customer
    ADD CONSTRAINT customer_email_key UNIQUE (email);

ALTER TABLE ONLY public.customer
    ADD CONSTRAINT customer_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public."order"
    ADD CONSTRAINT order_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.part
    ADD CONSTRAINT part_pkey PRIMARY KEY (id, y);

CREATE INDEX ix_gin ON public.customer USING gin (doc);

CREATE INDEX ix_lower ON public.customer USING btree (lower((email)::text) DESC NULLS LAST, id) INCLUDE (name);

CREATE UNIQUE INDEX ux_part ON public.customer USING btree (name) WHERE vip;

CREATE TRIGGER tr BEFORE INSERT ON public.customer FOR EACH ROW EXECUTE FUNCTION public.f1();

ALTER TABLE ONLY other.thing
    ADD CONSTRAINT thing_c_fkey FOREIGN KEY (c) REFERENCES public.customer(id);

ALTER TABLE ONLY public."order"
    ADD CONSTRAINT order_customer_id_fkey FOREIGN KEY (customer_id) REFERENCES public.customer(id) ON DELETE CASCADE;

ALTER TABLE ONLY public."order"
    ADD CONSTRAINT order_parent_fkey FOREIGN KEY (parent) REFERENCES public."order"(id) ON DELETE SET NULL DEFERRABLE INITIALLY DEFERRED;

GRANT SELECT ON TABLE public.customer TO joe;

--
-- PostgreSQL database dump complete
--

\unrestrict Abc123
