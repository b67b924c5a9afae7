// nodemailer.js PORT FROM TO BODY-FILE
const fs = require("fs");
const nodemailer = require("nodemailer");
const [port, from, to, bodyFile] = process.argv.slice(2);
const transport = nodemailer.createTransport({ host: "127.0.0.1", port: Number(port), secure: false });
transport
  .sendMail({ from, to, subject: "From nodemailer", text: fs.readFileSync(bodyFile, "utf8") })
  .then((info) => console.log(info.response))
  .catch((error) => { console.error(error); process.exit(1); });
